import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from a2f_jax.data import cache, open_cache, open_pairs, prepare
from a2f_jax.data.cache import cache_without_pixels
from a2f_jax.errors import UserError
from a2f_jax.images import write_rgb


@pytest.fixture
def data_dir(photos, tmp_path):
    prepare("photos", scale=2, data_dir=tmp_path / "data", source=photos, validation=2, min_size=1)
    return tmp_path / "data"


def _decoded(data_dir):
    return data_dir / "photos/x2/decoded"


def _assert_decoded(opened, pairs):
    assert opened.names == [pair.name for pair in pairs]
    for i, pair in enumerate(pairs):
        assert tuple(opened.sizes[i]) == pair.lr.shape[:2]
        lr, hr = opened.pair(i)
        np.testing.assert_array_equal(lr, pair.lr)
        np.testing.assert_array_equal(hr, pair.hr)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_the_cache_holds_the_pixels_of_all_pairs(data_dir, split):
    pairs = open_pairs("photos", scale=2, split=split, data_dir=data_dir)
    _assert_decoded(open_cache("Photos", scale=2, split=split, data_dir=data_dir), pairs)


def test_every_row_starts_at_a_new_chunk(tmp_path, picture):
    # 44 pixels take 132 bytes, more than a chunk; 128 pixels take exactly three chunks.
    for i, width in enumerate((42, 44, 128)):
        write_rgb(tmp_path / "wide" / f"{i}.png", picture(i, 10, width))
    prepare("wide", scale=2, data_dir=tmp_path, source=tmp_path / "wide", validation=0, min_size=1)
    opened = open_cache("wide", scale=2, data_dir=tmp_path)
    assert opened.hr_start.tolist() == [0, 10, 30]
    assert opened.lr_start.tolist() == [0, 5, 10]
    assert opened.hr.shape == (60, cache.CHUNK)
    for start, step, i, width in ((0, 1, 0, 42), (10, 2, 1, 44), (30, 3, 2, 128)):
        rows = opened.hr[start : start + 10 * step].reshape(10, -1)
        np.testing.assert_array_equal(rows[:, : 3 * width], picture(i, 10, width).reshape(10, -1))
        assert not rows[:, 3 * width :].any()


def test_the_pixels_are_read_only(data_dir):
    with pytest.raises(ValueError, match="read-only"):
        open_cache("photos", scale=2, data_dir=data_dir).pair(0)[1][:] = 0


def test_a_dataset_is_decoded_once(data_dir, monkeypatch):
    open_cache("photos", scale=2, data_dir=data_dir)
    monkeypatch.setattr(cache, "_build", None)
    open_cache("photos", scale=2, data_dir=data_dir)


def test_a_dataset_that_was_prepared_again_is_decoded_again(photos, data_dir, picture):
    old = open_cache("photos", scale=2, data_dir=data_dir)
    write_rgb(photos / f"{old.names[0]}", picture(100))
    prepare("photos", scale=2, data_dir=data_dir, source=photos, validation=2, min_size=1, overwrite=True)
    new = open_cache("photos", scale=2, data_dir=data_dir)
    np.testing.assert_array_equal(new.pair(0)[1], picture(100))
    assert not np.array_equal(old.pair(0)[1], picture(100))  # a run that has the old cache open can still use it
    assert len(list(_decoded(data_dir).glob("train-*"))) == 1


_OPEN = """
import sys
from a2f_jax.data import cache, datasets, open_cache
{}
print(open_cache("photos", scale=2, data_dir=sys.argv[1]).names)
"""


def _run(code, data_dir):
    command = [sys.executable, "-c", _OPEN.format(code), data_dir]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


_SLOWLY = """
import os, time
get = datasets.StoredPairs.__getitem__
def slowly(self, i):
    {}
    return get(self, i)
datasets.StoredPairs.__getitem__ = slowly
"""


def test_two_processes_may_open_a_cache_at_once(data_dir):
    processes = [
        _run(_SLOWLY.format("time.sleep(0.2); print('decoding', file=sys.stderr)"), data_dir) for _ in range(2)
    ]
    output = [process.communicate() for process in processes]
    assert output[0][0] == output[1][0] == f"{open_cache('photos', scale=2, data_dir=data_dir).names}\n"
    assert sorted(errors.count("decoding") for _, errors in output) == [0, 8]


def test_a_decoding_that_was_killed_is_repeated(data_dir):
    process = _run(_SLOWLY.format("i == 5 and os.kill(os.getpid(), 9)"), data_dir)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert (_decoded(data_dir) / "train-partial").is_dir()
    pairs = open_pairs("photos", scale=2, split="train", data_dir=data_dir)
    _assert_decoded(open_cache("photos", scale=2, data_dir=data_dir), pairs)
    assert len(list(_decoded(data_dir).glob("train-*"))) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: os.truncate(folder / "lr", 0),
        lambda folder: os.truncate(folder / "hr", 1280),
        lambda folder: os.truncate(folder / "index.npz", 100),
        lambda folder: (folder / "index.npz").write_bytes(b"\0" * 500),
        lambda folder: (folder / "index.npz").unlink(),
    ],
    ids=["empty", "truncated", "truncated index", "zeros", "missing"],
)
def test_decoded_pixels_that_are_damaged_are_decoded_again(data_dir, damage):
    # As a machine that loses its power may leave them.
    open_cache("photos", scale=2, data_dir=data_dir)
    (folder,) = _decoded(data_dir).glob("train-*")
    damage(folder)
    pairs = open_pairs("photos", scale=2, split="train", data_dir=data_dir)
    _assert_decoded(open_cache("photos", scale=2, data_dir=data_dir), pairs)


def test_a_disk_that_loses_what_is_written_is_reported(data_dir, monkeypatch):
    monkeypatch.setattr(cache, "_build", lambda *_: None)
    with pytest.raises(UserError, match=r"cannot be read back: check the disk, or prepare .* another data_dir"):
        open_cache("photos", scale=2, data_dir=data_dir)


def test_a_full_disk_is_reported_and_leaves_nothing_behind(data_dir):
    # To a program, a limit on the size of files looks like a full disk.
    process = _run(
        """
import resource
import tensorflow_datasets
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
sys.excepthook = lambda kind, error, _: print(kind.__name__, error, file=sys.stderr)
""",
        data_dir,
    )
    output = process.communicate()[1]
    assert "UserError cannot write decoded images to" in output and "File too large" in output, output
    assert not list(_decoded(data_dir).glob("train-*"))


def test_a_disk_that_is_too_small_is_found_before_decoding(data_dir, monkeypatch, set_free_space):
    set_free_space(10_000)
    monkeypatch.setattr(cache, "_build", None)
    with pytest.raises(UserError, match=r"has 9\.8 KB of free space, but decoding the images takes [\d.]+ KB"):
        open_cache("photos", scale=2, data_dir=data_dir)
    assert not list(_decoded(data_dir).glob("train-*"))


def test_too_many_pixels_are_found_before_decoding(data_dir, monkeypatch):
    monkeypatch.setattr(cache, "_build", None)
    monkeypatch.setattr(cache, "_MAX_CHUNKS", 100)
    with pytest.raises(UserError, match="photos ×2 has more than 250 GB of pixels: train on a subset of it"):
        open_cache("photos", scale=2, data_dir=data_dir)


def test_a_folder_that_cannot_be_written_is_named(data_dir):
    _decoded(data_dir).write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"photos/x2/decoded .*data_dir"):
        open_cache("photos", scale=2, data_dir=data_dir)


def test_a_damaged_image_is_reported_and_leaves_nothing_behind(data_dir):
    file = next(data_dir.glob("photos/x2/1.0.0/*train*"))
    content = bytearray(file.read_bytes())
    content[300] ^= 255
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"photos/x2/1\.0\.0 is damaged"):
        open_cache("photos", scale=2, data_dir=data_dir)
    assert not list(_decoded(data_dir).glob("train-*"))


def test_a_dataset_that_is_not_prepared_is_named(data_dir):
    with pytest.raises(UserError, match="a2f data prepare photos --scale 3"):
        open_cache("photos", scale=3, data_dir=data_dir)
    with pytest.raises(UserError, match="no split 'test', only"):
        open_cache("photos", scale=2, split="test", data_dir=data_dir)


def test_the_sizes_of_a_cache_are_known_without_decoding(data_dir, tmp_path):
    planned = cache_without_pixels("photos", scale=2, data_dir=data_dir)
    assert not (data_dir / "photos/x2/decoded").exists()
    opened = open_cache("photos", scale=2, data_dir=data_dir)
    for name in ("sizes", "lr_start", "hr_start"):
        np.testing.assert_array_equal(getattr(planned, name), getattr(opened, name))
    assert (planned.lr.shape, planned.hr.shape) == (opened.lr.shape, opened.hr.shape)
    assert cache_without_pixels("photos", scale=3, data_dir=data_dir) is None
    assert cache_without_pixels("sample", scale=2, data_dir=tmp_path) is None  # and is not prepared
    assert not (tmp_path / "sample").exists()
