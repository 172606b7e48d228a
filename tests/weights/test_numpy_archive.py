"""Weights in `.npz` files."""

import numpy as np
import pytest

from a2f_jax.errors import UserError
from a2f_jax.weights import read_weights


def test_a_damaged_archive_is_refused_wherever_the_damage_is(tmp_path):
    file = tmp_path / "w.npz"
    np.savez_compressed(file, **{"encoder.weight": np.random.default_rng(0).normal(size=(8, 8)).round(1)})
    content = file.read_bytes()
    for i in range(len(content)):
        file.write_bytes(content[:i] + bytes([content[i] ^ 0xFF]) + content[i + 1 :])
        # A ValueError if what is read are not the tensors of a network.
        with pytest.raises((UserError, ValueError)) as error:
            read_weights(file)
        assert "cannot read" not in str(error.value)  # as if it were the fault of the disk


def test_a_single_array_is_not_an_archive(tmp_path):
    with (tmp_path / "w.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError, match=r"is not an .npz file or is damaged: it contains a single array"):
        read_weights(tmp_path / "w.npz")


def test_a_few_bytes_that_unpack_to_gigabytes_are_refused_before_that(tmp_path):
    path = tmp_path / "w.npz"
    np.savez_compressed(path, a=np.zeros(1 << 18, np.float32))
    content = path.read_bytes()
    # The directory at the end of the archive states the size.
    size = (1 << 20) + 128
    at = content.rindex(b"PK\1\2") + 24
    assert int.from_bytes(content[at : at + 4], "little") == size
    path.write_bytes(content[:at] + (3 << 30).to_bytes(4, "little") + content[at + 4 :])
    with pytest.raises(UserError, match="its tensors have 3,221,225,472 bytes"):
        read_weights(path)
