"""Where the states of an image are stored."""

import errno
import os

import numpy as np
import pytest

from a2f_jax.errors import UserError
from a2f_jax.upscaling import states
from a2f_jax.upscaling.states import HostStates


def test_the_space_of_a_file_of_states_is_reserved(tmp_path, monkeypatch):
    reserved = []
    monkeypatch.setattr(states.os, "posix_fallocate", lambda file, start, size: reserved.append(size), raising=False)
    monkeypatch.setattr(states.np, "memmap", lambda *args, **options: None)
    HostStates(3, (2, 5), np.zeros((8, 8, 4), np.float32), tmp_path)
    assert reserved == [3 * 2 * 5 * 8 * 8 * 4 * 4]


def test_a_full_disk_is_an_error_and_not_a_crash(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(states.os, "posix_fallocate", full, raising=False)
    with pytest.raises(UserError, match=rf"cannot reserve .* in {tmp_path} \(No space left on device\): set TMPDIR"):
        HostStates(3, (2, 5), np.zeros((8, 8, 4), np.float32), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_for_temporary_files_that_cannot_be_used_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot create a temporary file in .*gone \(No such file or directory\): set"):
        HostStates(1, (1, 1), np.zeros((8, 8, 2), np.float32), tmp_path / "gone")
