import errno
import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from a2f_jax import buckets, staging
from a2f_jax.configs.a2f import get_config
from a2f_jax.data import open_cache, open_pairs, prepare, stored_pairs
from a2f_jax.data.discovery import find
from a2f_jax.data.locations import split_sizes
from a2f_jax.data.matlab_bicubic import matlab_bicubic
from a2f_jax.data.sources import Source
from a2f_jax.errors import UserError
from a2f_jax.files import as_path
from a2f_jax.images import read_rgb, write_rgb


def _files(folder):
    return {f: f.stat().st_mtime_ns for f in folder.rglob("*") if f.is_file()}


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_photographs_are_stored_with_lr_computed_from_them(photos, data_dir, scale, assert_same):
    folder = prepare("My-Photos", scale=scale, data_dir=data_dir, source=photos, validation=3, min_size=1)
    assert folder == data_dir / "my_photos" / f"x{scale}" / "1.0.0"
    sources = {source.name: source for source in find("my_photos", photos, scale)["train"]}
    for split, count in (("train", 7), ("validation", 3)):
        pairs = open_pairs("my_photos", scale=scale, split=split, data_dir=data_dir)
        assert len(pairs) == count
        assert_same(pairs, [sources.pop(pair.name) for pair in pairs], scale)


def test_large_datasets_are_spread_over_files_without_tensorflow(photos, data_dir, monkeypatch, assert_same):
    # The builders of tfds import TensorFlow, which is not installed, for splits larger than this.
    monkeypatch.setattr("tensorflow_datasets.core.shuffle.MAX_MEM_BUFFER_SIZE", 0)
    monkeypatch.setattr(stored_pairs, "MAX_EXAMPLES_PER_FILE", 3)
    folder = prepare("photos", scale=2, data_dir=data_dir, source=photos, validation=3, min_size=1)
    assert len(list(folder.glob("photos-train.array_record-*"))) == 3
    sources = find("photos", photos, 2)["train"]
    pairs = open_pairs("photos", scale=2, split="train", data_dir=data_dir)
    assert len(pairs) == 7
    names = [pair.name for pair in pairs]
    assert_same(pairs, [source for source in sources if source.name in names], 2)


def test_downscaled_copies_of_photographs_are_only_trained_on(photos, data_dir, capfd):
    arguments = {"scale": 2, "data_dir": data_dir, "source": photos, "validation": 3, "min_size": 8}
    folder = prepare("photos", **arguments, downscale=[0.75, 0.5])
    held_out = {pair.name for pair in open_pairs("photos", scale=2, split="validation", data_dir=data_dir)}
    trained = {pair.name: pair for pair in open_pairs("photos", scale=2, split="train", data_dir=data_dir)}
    names = {f"{i}.png" for i in range(10)}
    assert len(held_out) == 3
    assert held_out < names
    assert trained.keys() >= names - held_out
    copies = trained.keys() - names
    sizes = {name: (24 + int(name[0]), 40 - int(name[0])) for name in names - held_out}
    large = {f"{n}@{f}" for n, size in sizes.items() for f in (0.75, 0.5) if math.ceil(min(size) * f) >= 16}
    assert copies == large
    assert len(large) < 14
    assert f"too small: {14 - len(large)} of 14 downscaled copies" in capfd.readouterr().err
    for name in copies:
        original, _, factor = name.partition("@")
        hr = matlab_bicubic(read_rgb(photos / original), float(factor))
        hr = hr[: len(hr) // 2 * 2, : hr.shape[1] // 2 * 2]
        np.testing.assert_array_equal(trained[name].hr, hr)
        np.testing.assert_array_equal(trained[name].lr, matlab_bicubic(hr, 1 / 2))
    before = _files(folder)
    prepare("photos", **arguments, downscale=[0.75, 0.5])
    assert _files(folder) == before
    with pytest.raises(UserError, match="with other values of downscale or collages"):
        prepare("photos", **arguments, downscale=[0.5])
    # A further preparation holds out the same photographs.
    prepare("photos", **{**arguments, "scale": 3, "validation": None, "min_size": 1}, downscale=[0.5])
    assert {pair.name for pair in open_pairs("photos", scale=3, split="validation", data_dir=data_dir)} == held_out


def _gray_and_green(folder, held_out):
    for i in range(4):
        color = (0, 255, 0) if f"{i}.png" in held_out else (90 + i,) * 3
        write_rgb(folder / f"{i}.png", np.full((48, 64, 3), color, np.uint8))


def test_collages_are_drawn_from_the_training_photographs_only(tmp_path, data_dir):
    arguments = {"scale": 4, "data_dir": data_dir, "source": tmp_path, "min_size": 8, "overwrite": True}
    _gray_and_green(tmp_path, ())
    prepare("photos", **arguments, validation=1)
    held_out = {pair.name for pair in open_pairs("photos", scale=4, split="validation", data_dir=data_dir)}
    _gray_and_green(tmp_path, held_out)
    prepare("photos", **arguments, collages=2, downscale=[0.5])
    trained = {pair.name: pair for pair in open_pairs("photos", scale=4, split="train", data_dir=data_dir)}
    assert split_sizes(data_dir / "photos/x4/1.0.0") == {"train": 3 + 2 + 2, "validation": 1}
    for name, side in (("collage-0000", 1024), ("collage-0001", 1024), ("collage-0001@0.5", 512)):
        hr = trained[name].hr
        assert hr.shape == (side, side, 3)
        assert np.ptp(hr, axis=-1).max() == 0  # no green
        np.testing.assert_array_equal(trained[name].lr, matlab_bicubic(hr, 1 / 4))
    assert (trained["collage-0000"].hr != trained["collage-0001"].hr).any()


def test_collages_are_the_same_when_a_dataset_is_prepared_again(photos, data_dir, tmp_path):
    arguments = {"scale": 2, "source": photos, "validation": 3, "min_size": 8}
    folder = prepare("photos", data_dir=data_dir, **arguments, collages=1)
    prepare("photos", data_dir=tmp_path / "other", **arguments, collages=1)
    first, second = (
        {pair.name: pair.hr for pair in open_pairs("photos", scale=2, split="train", data_dir=where)}
        for where in (data_dir, tmp_path / "other")
    )
    np.testing.assert_array_equal(first["collage-0000"], second["collage-0000"])
    before = _files(folder)
    prepare("photos", data_dir=data_dir, **arguments, collages=np.int64(1))
    assert _files(folder) == before
    with pytest.raises(UserError, match="with other values of downscale or collages"):
        prepare("photos", data_dir=data_dir, **arguments, collages=2)


def test_a_preparation_that_was_interrupted_keeps_its_collages(photos, data_dir, monkeypatch):
    arguments = {"scale": 2, "data_dir": data_dir, "source": photos, "validation": 3, "min_size": 8, "collages": 2}
    drawn = []

    def draw(photographs, rng):
        if len(drawn) == 1:
            raise KeyboardInterrupt
        drawn.append(len(photographs))
        return np.full((1024, 1024, 3), len(drawn), np.uint8)

    monkeypatch.setattr(stored_pairs, "draw_collage", draw)
    monkeypatch.setattr(stored_pairs, "in_order", lambda function, items, *_, **__: map(function, items))
    with pytest.raises(KeyboardInterrupt):
        prepare("photos", **arguments)
    drawn.append(0)
    prepare("photos", **arguments)
    names = {pair.name: pair.hr.max() for pair in open_pairs("photos", scale=2, split="train", data_dir=data_dir)}
    assert drawn == [7, 0, 7]
    assert (names["collage-0000"], names["collage-0001"]) == (1, 3)


def test_a_process_that_is_killed_is_reported(photos, data_dir, monkeypatch):
    monkeypatch.setattr(stored_pairs, "usable_cores", lambda: 2)
    monkeypatch.setattr(stored_pairs, "_draw", lambda index, **_: os._exit(1))
    with pytest.raises(UserError, match="was killed, perhaps for lack of memory: stop other programs and run the same"):
        prepare("photos", scale=2, data_dir=data_dir, source=photos, min_size=8, collages=2)


def test_without_a_training_photograph_there_are_no_collages(tmp_path, data_dir, picture):
    for name, side in (("train/HR/a.png", 8), ("val/HR/b.png", 64)):
        write_rgb(tmp_path / name, picture(0, side, side))
    for name, side in (("train/X2/a.png", 4), ("val/X2/b.png", 32)):
        write_rgb(tmp_path / name, picture(0, side, side))
    arguments = {"scale": 4, "data_dir": data_dir, "source": tmp_path, "min_size": 8, "skip_bad": True}
    with pytest.raises(UserError, match="no photograph is left to draw collages from: omit collages"):
        prepare("photos", **arguments, collages=1)


@pytest.mark.parametrize("number", [-1, 1.5, "2", None])
def test_the_number_of_collages_is_checked(photos, data_dir, number):
    with pytest.raises(UserError, match=f"collages must be a number of images, not {re.escape(repr(number))}"):
        prepare("photos", scale=2, data_dir=data_dir, source=photos, collages=number)


def test_collages_must_not_be_smaller_than_the_smallest_image(photos, data_dir):
    with pytest.raises(UserError, match="the LR images of collages have 256 pixels per side, and min_size is 257"):
        prepare("photos", scale=4, data_dir=data_dir, source=photos, collages=1, min_size=257)


def test_copies_that_shrink_to_nothing_are_left_out_like_other_small_ones(photos, data_dir, capfd):
    arguments = {"scale": 4, "data_dir": data_dir, "source": photos, "validation": 3, "min_size": 4}
    prepare("photos", **arguments, downscale=[0.01])
    assert "too small: 7 of 7 downscaled copies" in capfd.readouterr().err


def test_a_photograph_that_can_no_longer_be_read_is_not_told_as_too_small(photos, data_dir, monkeypatch):
    read = Source.read

    def fail(source, scale):
        if source.factor < 1:
            raise UserError(f"cannot read {source.hr}")
        return read(source, scale)

    monkeypatch.setattr(Source, "read", fail)
    with pytest.raises(UserError, match=r"cannot read .*\.png"):
        prepare("photos", scale=2, data_dir=data_dir, source=photos, validation=3, min_size=8, downscale=[0.75])


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ([1.0], "must be factors between 0 and 1, not 1.0"),
        ([0.5, 0.0], "must be factors between 0 and 1, not 0.0 0.5"),
        ([float("nan")], "must be factors between 0 and 1, not nan"),
        (0.5, "must be several factors, such as (0.7, 0.5), not 0.5"),
        ("0.5", "must be several factors"),
    ],
)
def test_photographs_are_downscaled_by_factors_below_1(photos, data_dir, factors, message):
    with pytest.raises(UserError, match=f"downscale {re.escape(message)}") as caught:
        prepare("photos", scale=2, data_dir=data_dir, source=photos, downscale=factors)
    assert caught.value.parameter == "downscale"


def test_the_order_and_the_repetition_of_factors_do_not_matter(photos, data_dir):
    arguments = {"scale": 2, "data_dir": data_dir, "source": photos, "validation": 1, "min_size": 1}
    folder = prepare("photos", **arguments, downscale=iter([0.5, 0.7, 0.7]))
    assert split_sizes(folder) == {"train": 27, "validation": 1}
    before = _files(folder)
    assert prepare("photos", **arguments, downscale=np.array([0.7, 0.5])) == folder
    assert _files(folder) == before


@pytest.mark.parametrize("name", ["sample", "set5", "div2k"])
@pytest.mark.parametrize("addition", [{"downscale": [0.5]}, {"collages": 1}])
def test_nothing_is_added_to_datasets_with_splits_of_their_own(name, addition, data_dir, div2k):
    (parameter,) = addition
    source = {} if name == "sample" else {"source": div2k(True)}
    expected = f"{parameter} applies to folders of photographs only, and {name} has"
    with pytest.raises(UserError, match=expected) as caught:
        prepare(name, scale=4, data_dir=data_dir, **source, **addition)
    assert caught.value.parameter == parameter


def test_nothing_is_added_to_pairs_with_lr_images(tmp_path, data_dir, picture):
    pairs = tmp_path / "pairs"
    write_rgb(pairs / "HR/a.png", picture(0, 24, 36))
    write_rgb(pairs / "LR/a.png", picture(0, 12, 18))
    with pytest.raises(UserError, match="my_pairs has LR images of its own: omit downscale"):
        prepare("my_pairs", scale=2, data_dir=data_dir, source=pairs, downscale=[0.5])
    with pytest.raises(UserError, match="my_pairs has LR images of its own: omit collages"):
        prepare("my_pairs", scale=2, data_dir=data_dir, source=pairs, collages=1)
    with pytest.raises(UserError, match="downscale requires the folder with the photographs"):
        prepare("my_pairs", scale=2, data_dir=data_dir, downscale=[0.5])
    with pytest.raises(UserError, match="collages requires the folder with the photographs"):
        prepare("my_pairs", scale=2, data_dir=data_dir, collages=1)


@pytest.mark.parametrize("packed", [True, False])
def test_div2k_is_stored_as_published(div2k, data_dir, packed, assert_same):
    source = div2k(packed)
    prepare("div2k", scale=4, data_dir=data_dir, source=source)
    for split, sources in find("div2k", source, 4).items():
        assert_same(open_pairs("div2k", scale=4, split=split, data_dir=data_dir), sources, 4)


def test_the_default_folder_is_that_of_the_environment(photos, data_dir, monkeypatch):
    monkeypatch.setenv("A2F_DATA_DIR", str(data_dir))
    prepare("photos", scale=2, source=photos, validation=1, min_size=1)
    assert len(open_pairs("photos", scale=2)) == 1
    assert (data_dir / "photos").is_dir()


def test_repeating_a_preparation_keeps_the_dataset(photos, data_dir):
    arguments = {"scale": 2, "data_dir": data_dir, "source": photos, "validation": 0, "min_size": 1}
    folder = prepare("photos", **arguments)
    before = _files(folder)
    assert prepare("photos", **arguments) == folder
    assert prepare("photos", scale=2, data_dir=data_dir) == folder
    assert _files(folder) == before


def test_changed_files_are_prepared_again_only_with_overwrite(photos, data_dir, picture):
    arguments = {"scale": 2, "data_dir": data_dir, "source": photos, "validation": 0, "min_size": 1}
    before = _files(prepare("photos", **arguments))
    write_rgb(photos / "0.png", picture(100))
    with pytest.raises(UserError, match="from different files or with other values of downscale or collages"):
        prepare("photos", **arguments)
    assert _files(data_dir / "photos/x2/1.0.0") == before
    prepare("photos", **arguments, overwrite=True)
    pair = open_pairs("photos", scale=2, split="train", data_dir=data_dir)[0]
    np.testing.assert_array_equal(pair.hr, picture(100))
    with pytest.raises(UserError, match="was prepared with 0 validation images instead of 2: overwrite it"):
        prepare("photos", **{**arguments, "validation": 2})


def test_a_dataset_is_kept_until_its_replacement_is_complete(photos, data_dir):
    arguments = {"scale": 2, "data_dir": data_dir, "source": photos, "validation": 0, "min_size": 1}
    before = _files(prepare("photos", **arguments))
    (photos / "9.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"9\.png"):
        prepare("photos", **arguments, overwrite=True)
    assert _files(data_dir / "photos/x2/1.0.0") == before


def test_an_unreadable_image_is_named_and_no_dataset_is_left(photos, data_dir, assert_same):
    (photos / "4.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"photos/4\.png"):
        prepare("photos", scale=2, data_dir=data_dir, source=photos, validation=0, min_size=1)
    with pytest.raises(UserError, match="is not prepared"):
        open_pairs("photos", scale=2, data_dir=data_dir)
    (photos / "4.png").unlink()
    prepare("photos", scale=2, data_dir=data_dir, source=photos, validation=0, min_size=1)
    pairs = open_pairs("photos", scale=2, split="train", data_dir=data_dir)
    assert_same(pairs, find("photos", photos, 2)["train"], 2)


def _run(code, *arguments):
    """Starts a process that prepares a dataset after running `code`."""
    code = f"""
import sys
from a2f_jax.data import prepare
from a2f_jax.data.sources import Source
{code}
prepare("photos", scale=2, source=sys.argv[1], data_dir=sys.argv[2], validation=0, min_size=1)
"""
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stderr=subprocess.PIPE, text=True)


def test_a_preparation_that_was_killed_leaves_no_dataset_and_is_resumed(photos, data_dir, monkeypatch, assert_same):
    process = _run(
        """
import os, signal, time
read = Source.read
def kill_at_the_eighth(self, scale):
    if self.name == "7.png":
        time.sleep(0.3)  # let other threads finish their images
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, scale)
Source.read = kill_at_the_eighth
""",
        photos,
        data_dir,
    )
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(UserError, match="is not prepared"):
        open_pairs("photos", scale=2, data_dir=data_dir)

    read, names = Source.read, []

    def note(self, scale):
        names.append(self.name)
        return read(self, scale)

    monkeypatch.setattr(Source, "read", note)
    folder = prepare("photos", scale=2, data_dir=data_dir, source=photos, validation=0, min_size=1)
    monkeypatch.undo()
    assert {"7.png"} <= set(names) <= {"7.png", "8.png", "9.png"}
    pairs = open_pairs("photos", scale=2, split="train", data_dir=data_dir)
    assert_same(pairs, find("photos", photos, 2)["train"], 2)
    assert {f.name for f in folder.parent.iterdir()} == {"1.0.0", "prepare.lock"}


def test_two_processes_may_prepare_at_once(photos, data_dir, assert_same):
    slow = """
import time
read = Source.read
def slowly(self, scale):
    time.sleep(0.1)
    print("reading", self.name, file=sys.stderr)
    return read(self, scale)
Source.read = slowly
"""
    processes = [_run(slow, photos, data_dir) for _ in range(2)]
    output = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], output
    assert sorted(text.count("reading") for text in output) == [0, 10]
    pairs = open_pairs("photos", scale=2, split="train", data_dir=data_dir)
    assert_same(pairs, find("photos", photos, 2)["train"], 2)


@pytest.mark.parametrize("limit", [500, 30_000])
def test_a_full_disk_is_reported_and_no_dataset_is_left(photos, data_dir, limit):
    # To a program, a limit on the size of files looks like a full disk. 500 bytes are too few for an image, 30,000 for
    # an array_record file.
    process = _run(
        f"""
import resource
import tensorflow_datasets
from a2f_jax.errors import UserError
from a2f_jax.files import as_path
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.excepthook = lambda kind, error, _: print(kind.__name__, error, file=sys.stderr)
""",
        photos,
        data_dir,
    )
    output = process.communicate()[1]
    assert "UserError cannot " in output and "File too large" in output, output
    _assert_cleaned(data_dir)


def test_a_folder_that_cannot_be_written_is_named(photos, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*/file/photos/x2"):
        prepare("photos", scale=2, data_dir=tmp_path / "file", source=photos)


def test_div2k_prepared_by_tfds_is_not_prepared_again(tfds_div2k, data_dir):
    with pytest.raises(UserError, match=f"is already prepared: use {tfds_div2k} as the folder"):
        prepare("div2k", scale=4, data_dir=data_dir, source=tfds_div2k)


def _names(data_dir, split, scale=2):
    return {pair.name for pair in open_pairs("photos", scale=scale, split=split, data_dir=data_dir)}


def _assert_cleaned(data_dir):
    assert [file.name for file in data_dir.rglob("*") if file.is_file()] == ["prepare.lock"]


def test_adding_photographs_moves_none_between_training_and_validation(photos, data_dir, picture):
    options = {"data_dir": data_dir, "source": photos, "validation": 3, "min_size": 1}
    prepare("photos", scale=2, **options)
    train, validation = _names(data_dir, "train"), _names(data_dir, "validation")
    assert len(validation) == 3
    for i in range(10, 40):  # enough for some to come first in any order by a hash
        write_rgb(photos / f"{i}.png", picture(i))
    prepare("photos", scale=2, **options, overwrite=True)
    assert _names(data_dir, "validation") == validation
    assert _names(data_dir, "train") > train
    # Weights for one scale are often trained from those for another.
    prepare("photos", scale=4, **options)
    assert _names(data_dir, "validation", scale=4) == validation


@pytest.mark.parametrize("other", [0, 3])
def test_another_number_of_validation_images_requires_overwrite(photos, data_dir, other):
    options = {"scale": 2, "data_dir": data_dir, "source": photos, "min_size": 1}
    prepare("photos", **options, validation=2)
    for source in ({}, {"source": None}):
        with pytest.raises(UserError, match=f"was prepared with 2 validation images instead of {other}: overwrite it"):
            prepare("photos", **{**options, **source}, validation=other)
    prepare("photos", **options, validation=other, overwrite=True)
    sizes = split_sizes(data_dir / "photos/x2/1.0.0")
    assert sizes.get("validation", 0) == other


def test_a_validation_split_of_its_own_is_kept(tmp_path, data_dir, picture):
    for split in ("train", "val"):
        for kind in ("HR", "LR"):
            write_rgb(
                tmp_path / "pairs" / split / kind / "a.png", picture(0, *((24, 36) if kind == "HR" else (12, 18)))
            )
    options = {"scale": 2, "data_dir": data_dir, "source": tmp_path / "pairs", "min_size": 1}
    for _ in range(2):
        assert split_sizes(prepare("pairs", **options, validation=0)) == {"train": 1, "validation": 1}
    with pytest.raises(UserError, match="pairs already contains a validation split: omit validation"):
        prepare("pairs", **options, validation=1)


def test_a_tenth_of_the_photographs_is_held_out_by_default(photos, data_dir):
    prepare("photos", scale=2, data_dir=data_dir, source=photos, min_size=1)
    assert len(_names(data_dir, "train")) == 9
    assert len(_names(data_dir, "validation")) == 1
    prepare("photos", scale=2, data_dir=data_dir, source=photos, min_size=1)


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (10, "holding out 10 of 10 images leaves none to train on"),
        (-1, "validation must be an integer of at least 0, not -1"),
    ],
)
def test_an_impossible_number_of_validation_images_is_refused(photos, data_dir, validation, message):
    with pytest.raises(UserError, match=message):
        prepare("photos", scale=4, data_dir=data_dir, source=photos, validation=validation, min_size=1)
    assert not list(data_dir.rglob("*.png"))


@pytest.mark.parametrize("option", [{"validation": 5}, {"skip_bad": True}])
def test_options_for_photographs_are_refused_for_datasets_with_splits(div2k, data_dir, option):
    with pytest.raises(UserError, match=f"{next(iter(option))} applies to folders of photographs only, and div2k has"):
        prepare("div2k", scale=4, data_dir=data_dir, source=div2k(packed=False), **option)


@pytest.fixture
def bad_photos(photos, picture):
    """The photographs, of which three cannot be used."""
    (photos / "broken.png").write_bytes((photos / "0.png").read_bytes()[:500])
    Image.new("CMYK", (40, 40)).save(photos / "print.jpg")
    write_rgb(photos / "thumbnail.png", picture(0, 16, 23))
    return photos


def test_all_photographs_that_cannot_be_used_are_listed_at_once(bad_photos, data_dir):
    message = r"3 of 13 images cannot be used: .*broken\.png.*; .*print\.jpg.*; .*thumbnail\.png is too small.* 11×8 "
    with pytest.raises(UserError, match=message) as caught:
        prepare("photos", scale=2, data_dir=data_dir, source=bad_photos, min_size=12)
    assert caught.value.parameter == "skip_bad"
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="is not prepared"):
        open_pairs("photos", scale=2, data_dir=data_dir)


def test_photographs_that_cannot_be_used_are_left_out_on_request(bad_photos, data_dir, capsys):
    prepare(
        "photos",
        scale=2,
        data_dir=data_dir,
        source=bad_photos,
        validation=2,
        min_size=12,
        skip_bad=True,
        progress=False,
    )
    assert _names(data_dir, "train") | _names(data_dir, "validation") == {f"{i}.png" for i in range(10)}
    assert len(_names(data_dir, "validation")) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[:3] for line in lines] == [["a2f:", "left", "out:"]] * 3


def test_images_in_unsupported_formats_are_named(photos, data_dir, capsys):
    (photos / "scan.jp2").touch()
    (photos / ".hidden.jp2").touch()
    prepare("photos", scale=2, data_dir=data_dir, source=photos, min_size=1)
    assert capsys.readouterr().err == "a2f: left out, in unsupported formats: scan.jp2\n"


def test_a_dataset_without_usable_photographs_is_refused(tmp_path, data_dir, picture):
    write_rgb(tmp_path / "tiny" / "a.png", picture(0))
    with pytest.raises(UserError, match=r"no image of tiny can be used: .*a\.png is too small"):
        prepare("tiny", scale=2, data_dir=data_dir, source=tmp_path / "tiny", skip_bad=True)


def test_photographs_are_by_default_large_enough_for_the_patches_of_the_config(tmp_path, data_dir, picture):
    patch_size = get_config().data.patch_size
    for name, height in (("small", 2 * patch_size - 1), ("large", 2 * patch_size)):
        write_rgb(tmp_path / "mine" / f"{name}.png", picture(0, height, 2 * patch_size))
    prepare("mine", scale=2, data_dir=data_dir, source=tmp_path / "mine", skip_bad=True)
    (pair,) = open_pairs("mine", scale=2, split="train", data_dir=data_dir)
    assert pair.name == "large.png"


def test_a_disk_that_is_too_small_is_found_before_the_work(photos, data_dir, monkeypatch, set_free_space):
    free = sum(file.stat().st_size for file in photos.iterdir())  # half of what it takes
    set_free_space(free)
    monkeypatch.setattr(Source, "read", None)
    with pytest.raises(UserError, match=r"preparing photos takes .*: free some space or choose another folder"):
        prepare("photos", scale=2, data_dir=data_dir, source=photos, min_size=1)
    _assert_cleaned(data_dir)


def test_a_disk_that_is_too_small_for_collages_is_found_before_the_work(photos, data_dir, monkeypatch, set_free_space):
    set_free_space(50 * 2**20)
    monkeypatch.setattr(Source, "read", None)
    with pytest.raises(UserError, match=r"preparing photos takes .*: free some space or choose another folder"):
        prepare("photos", scale=2, data_dir=data_dir, source=photos, min_size=1, collages=20)
    _assert_cleaned(data_dir)


def test_bars_can_be_switched_off(photos, data_dir, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    prepare("photos", scale=2, data_dir=data_dir, source=photos, min_size=1)
    assert "preparing photos ×2" in capsys.readouterr().err
    prepare("photos", scale=2, data_dir=data_dir, source=photos, min_size=1, overwrite=True, progress=False)
    assert capsys.readouterr().err == ""


def test_pairs_in_folders_are_prepared_as_pairs(tmp_path, data_dir, picture):
    for i in range(3):
        write_rgb(tmp_path / "paired" / "HR" / f"{i}.png", picture(i))
        write_rgb(tmp_path / "paired" / "LR" / f"{i}.png", picture(10 + i, 12, 18))
    prepare("paired", scale=2, data_dir=data_dir, source=tmp_path / "paired", validation=1, min_size=1)
    train, held_out = (open_pairs("paired", scale=2, split=s, data_dir=data_dir) for s in ("train", "validation"))
    assert (len(train), len(held_out)) == (2, 1)
    for pair in (*train, *held_out):
        np.testing.assert_array_equal(pair.hr, picture(int(pair.name)))
        np.testing.assert_array_equal(pair.lr, picture(10 + int(pair.name), 12, 18))


def test_pairs_in_two_folders_are_prepared_as_pairs_and_sizes_are_checked_pair_by_pair(
    tmp_path, data_dir, picture, assert_same
):
    hr, lr = tmp_path / "mine/originals", tmp_path / "theirs"
    for i in range(4):
        write_rgb(hr / f"{i}.png", picture(i))
        write_rgb(lr / "X2" / f"{i}x2.png", picture(10 + i, 12, 18))
    options = {"scale": 2, "data_dir": data_dir, "source": hr, "lr_source": lr, "validation": 1, "min_size": 1}
    prepare("paired", **options)
    pairs = [open_pairs("paired", scale=2, split=s, data_dir=data_dir) for s in ("train", "validation")]
    for part in pairs:
        assert_same(part, [Source(p.name, hr / f"{p.name}.png", lr / f"X2/{p.name}x2.png") for p in part], 2)
    for i in (1, 2):
        write_rgb(lr / "X2" / f"{i}x2.png", picture(i, 12, 19))
    with pytest.raises(UserError) as refused:
        prepare("paired", **options, overwrite=True)
    for i in (1, 2):
        assert f"{lr}/X2/{i}x2.png is 19×12 pixels, but {hr}/{i}.png at 1/2 of its size is 18×12" in str(refused.value)
    assert (
        sum(map(len, (open_pairs("paired", scale=2, split=s, data_dir=data_dir) for s in ("train", "validation")))) == 4
    )


@pytest.mark.parametrize(
    ("name", "options", "message", "remedy"),
    [
        ("mine", {"lr_source": "lr"}, "lr has only the LR images: pass the folder with the HR images too", "source"),
        ("div2k", {"source": "hr", "lr_source": "lr"}, "div2k has its own layout: omit lr_source", "lr_source"),
        ("set5", {"source": "hr", "lr_source": "lr"}, "set5 has its own layout: omit lr_source", "lr_source"),
        ("mine", {"source": "none"}, "none is not a folder: pass the folder with the images of mine", "source"),
        ("mine", {"source": "file"}, "file is not a folder: pass the folder with the images of mine", "source"),
        ("div2k", {"source": "none"}, "none is not a folder: pass the folder with the images of div2k", "source"),
        (
            "mine",
            {"source": ".", "lr_source": "none"},
            "none is not a folder: pass the folder with the LR images",
            "lr_source",
        ),
    ],
)
def test_folders_of_images_that_are_missing_are_named(data_dir, tmp_path, monkeypatch, name, options, message, remedy):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=message) as refused:
        prepare(name, scale=2, data_dir=data_dir, **options)
    assert refused.value.parameter == remedy


def test_the_home_folder_is_expanded(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    folder = prepare("photos", scale=2, data_dir="~/sets", source="~/photos", min_size=1)
    assert folder == tmp_path / "sets/photos/x2/1.0.0"
    assert len(open_pairs("photos", scale=2, split="train", data_dir="~/sets")) == 9
    assert len(open_cache("photos", scale=2, data_dir="~/sets").names) == 9
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("killed", [False, True])
def test_a_dataset_that_cannot_be_replaced_stays(photos, data_dir, picture, monkeypatch, killed):
    arguments = {"scale": 2, "data_dir": data_dir, "source": photos, "validation": 0, "min_size": 1}
    target = prepare("photos", **arguments)
    before = _files(target)
    write_rgb(photos / "0.png", picture(100))
    replace = os.replace

    def fail(source, destination):
        if pathlib.Path(destination) == target and pathlib.Path(source).name != "old":
            raise KeyboardInterrupt if killed else OSError(5, "the disk fails")
        replace(source, destination)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt if killed else UserError):
        prepare("photos", **arguments, overwrite=True)
    if killed:  # between the two steps; the next attempt fails too, and must not lose the dataset
        assert not target.exists()
        monkeypatch.setattr(stored_pairs, "_encode_all", lambda *_: fail("new", target))
        with pytest.raises(KeyboardInterrupt):
            prepare("photos", **arguments, overwrite=True)
    assert _files(target) == before
    monkeypatch.undo()
    prepare("photos", **arguments, overwrite=True)
    images = {pair.name: pair.hr for pair in open_pairs("photos", scale=2, split="train", data_dir=data_dir)}
    np.testing.assert_array_equal(images["0.png"], picture(100))


def test_unreadable_folders_are_refused_or_left_out_by_name(photos, data_dir, monkeypatch, capfd):
    (photos / "private").mkdir()
    scandir = os.scandir

    def refusing(path="."):  # permissions do not apply to root
        if not isinstance(path, int) and pathlib.Path(path).name == "private":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    arguments = {"scale": 2, "data_dir": data_dir, "source": photos, "validation": 1, "min_size": 1}
    with pytest.raises(UserError, match="folders that cannot be read: private; fix or remove them") as error:
        prepare("photos", **arguments)
    assert error.value.parameter == "skip_bad"
    assert not data_dir.exists()
    assert split_sizes(prepare("photos", **arguments, skip_bad=True)) == {"train": 9, "validation": 1}
    assert "left out: folders that cannot be read: private" in capfd.readouterr().err


def test_a_source_that_cannot_be_listed_is_not_to_be_left_out(photos, data_dir, monkeypatch):
    def refuse(folder):  # permissions do not apply to root
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(pathlib.Path, "iterdir", refuse)
    with pytest.raises(UserError, match=f"cannot read {photos}: Permission denied") as error:
        prepare("photos", scale=2, data_dir=data_dir, source=photos)
    assert error.value.parameter == "source"


def test_images_whose_names_are_not_utf_8_are_refused_or_left_out(photos, data_dir, capfd):
    shutil.copy(photos / "0.png", os.fsencode(photos) + b"/caf\xe9.png")
    arguments = {"scale": 2, "data_dir": data_dir, "source": photos, "validation": 1, "min_size": 1}
    with pytest.raises(UserError, match=r"not UTF-8: caf\\udce9\.png; fix or remove them") as error:
        prepare("photos", **arguments)
    assert error.value.parameter == "skip_bad"
    assert split_sizes(prepare("photos", **arguments, skip_bad=True)) == {"train": 9, "validation": 1}
    assert r"left out: images whose file names are not UTF-8: caf\udce9.png" in capfd.readouterr().err


def test_a_source_for_the_sample_is_refused(photos, data_dir):
    with pytest.raises(UserError, match="sample has its own images: omit source") as error:
        prepare("sample", scale=4, data_dir=data_dir, source=photos)
    assert error.value.parameter == "source"


@pytest.mark.parametrize("scale", [0, 5, 2.0, "4", True])
def test_other_scales_are_refused_and_leave_nothing(photos, data_dir, scale):
    with pytest.raises(UserError, match="scale must be one of 2, 3, 4, not"):
        prepare("photos", scale=scale, data_dir=data_dir, source=photos)
    with pytest.raises(UserError, match="scale must be one of 2, 3, 4, not"):
        open_pairs("sample", scale=scale, data_dir=data_dir)
    assert not data_dir.exists()


def test_a_dataset_in_a_bucket_is_the_same_as_a_local_one(bucket, photos, data_dir, assert_same):
    options = {"scale": 2, "source": photos, "validation": 3, "min_size": 1}
    local = prepare("photos", data_dir=data_dir, **options)
    remote = prepare("photos", data_dir=bucket, **options)
    assert str(remote) == f"{bucket}/photos/x2/1.0.0"
    assert split_sizes(remote) == split_sizes(local)
    for split in ("train", "validation"):
        pairs, expected = (open_pairs("photos", scale=2, split=split, data_dir=folder) for folder in (bucket, data_dir))
        assert [pair.name for pair in pairs] == [pair.name for pair in expected]
        for pair, other in zip(pairs, expected, strict=True):
            np.testing.assert_array_equal(pair.hr, other.hr)
            np.testing.assert_array_equal(pair.lr, other.lr)
    decoded = open_cache("photos", scale=2, data_dir=bucket)
    np.testing.assert_array_equal(decoded.hr, open_cache("photos", scale=2, data_dir=data_dir).hr)


def test_preparing_in_a_bucket_again_keeps_the_dataset_and_the_division(bucket, photos):
    options = {"source": photos, "data_dir": bucket, "min_size": 1}
    first = prepare("photos", scale=2, validation=3, **options)
    before = buckets.list_files(first)
    assert prepare("photos", scale=2, **options) == prepare("photos", scale=2, data_dir=bucket) == first
    assert buckets.list_files(first) == before
    with pytest.raises(UserError, match=rf"{first} was prepared with 3 validation images instead of 4"):
        prepare("photos", scale=2, validation=4, data_dir=bucket)

    for i in range(10, 20):
        write_rgb(photos / f"{i}.png", np.full((30, 30, 3), i, np.uint8))
    with pytest.raises(UserError, match=f"{first} was prepared from different files"):
        prepare("photos", scale=2, **options)
    prepare("photos", scale=3, **options)
    prepare("photos", scale=2, overwrite=True, **options)
    for scale in (2, 3):
        held_out = {pair.name for pair in open_pairs("photos", scale=scale, data_dir=bucket)}
        old = {pair.name for pair in open_pairs("photos", scale=scale, split="train", data_dir=bucket)} | held_out
        assert len(old) == 20
        assert len([name for name in held_out if int(name.removesuffix(".png")) < 10]) == 3


def test_a_dataset_whose_upload_was_interrupted_is_not_there_and_is_prepared_again(bucket, photos, monkeypatch):
    options = {"scale": 2, "source": photos, "data_dir": bucket, "min_size": 1}

    def fail(file, path):
        raise KeyboardInterrupt

    monkeypatch.setattr(buckets, "upload", fail)
    with pytest.raises(KeyboardInterrupt):
        prepare("photos", **options)
    with pytest.raises(UserError, match=f"photos ×2 is not prepared in {bucket}, .* --data-dir {bucket}"):
        open_pairs("photos", scale=2, data_dir=bucket)
    monkeypatch.undo()
    prepare("photos", **options)
    assert len(open_pairs("photos", scale=2, data_dir=bucket)) == 1


def test_photographs_and_benchmark_sets_are_read_from_a_bucket(bucket, photos, data_dir, assert_same):
    staging.upload_folder(photos, as_path(f"{bucket}/photos"), last="0.png")
    options = {"scale": 2, "source": f"{bucket}/photos", "data_dir": data_dir, "min_size": 1}
    for _ in range(2):  # the files are recognized as the same
        prepare("photos", **options)
    assert len(open_pairs("photos", scale=2, split="train", data_dir=data_dir)) == 9
    staging.upload_folder(photos, as_path(f"{bucket}/benchmark/Set5/HR"), last="0.png")
    pairs = open_pairs("set5", scale=2, data_dir=f"{bucket}/benchmark")
    assert_same(pairs, [Source(pair.name, photos / f"{pair.name}.png") for pair in pairs], 2)
    assert len(pairs) == 10
    lr = f"{bucket}/benchmark/Set5/HR"
    with pytest.raises(UserError, match=f"{lr}/0.png is 40×24 pixels, but {bucket}/photos/0.png at 1/2"):
        prepare("paired", **options, lr_source=lr)
    with pytest.raises(UserError, match=f"{bucket}/benchmark does not contain set14"):
        open_pairs("set14", scale=2, data_dir=f"{bucket}/benchmark")


def test_a_data_folder_inside_the_folder_of_photographs_is_not_part_of_them(photos, picture):
    data_dir = photos / "data"
    (photos / "broken.png").write_bytes((photos / "0.png").read_bytes()[:-100])
    with pytest.raises(UserError, match="broken"):
        prepare("mine", scale=2, data_dir=data_dir, source=photos, validation=1, min_size=1)
    assert list(data_dir.rglob("*-hr.png"))  # an attempt that can be continued
    (photos / "broken.png").unlink()
    names = {f"{i}.png" for i in range(10)}
    prepare("mine", scale=2, data_dir=data_dir, source=photos, validation=1, min_size=1)
    splits = [open_pairs("mine", scale=2, split=split, data_dir=data_dir) for split in ("train", "validation")]
    assert sorted(pair.name for pairs in splits for pair in pairs) == sorted(names)


def test_a_prepared_dataset_with_smaller_images_than_asked_for_is_refused(photos, data_dir):
    arguments = {"scale": 2, "data_dir": data_dir, "source": photos, "validation": 0}
    folder = prepare("photos", **arguments, min_size=1)
    smallest = min(min(pair.lr.shape[:2]) for pair in open_pairs("photos", scale=2, split="train", data_dir=data_dir))
    assert prepare("photos", **arguments, min_size=smallest) == folder
    with pytest.raises(UserError, match=rf"LR images with {smallest} pixels per side, and min_size is {smallest + 1}"):
        prepare("photos", **arguments, min_size=smallest + 1)


def test_a_smaller_minimum_than_that_which_left_images_out_is_refused(photos, data_dir, capfd):
    arguments = {"scale": 2, "data_dir": data_dir, "source": photos, "validation": 0, "skip_bad": True}
    prepare("photos", **arguments, min_size=14)
    assert capfd.readouterr().err.count("is too small") == 4
    with pytest.raises(UserError, match="was prepared with min_size 14, which left out smaller images: overwrite it"):
        prepare("photos", **arguments, min_size=12)
    folder = prepare("photos", **arguments, min_size=12, overwrite=True)
    assert split_sizes(folder) == {"train": 10}
    assert prepare("photos", **arguments, min_size=1) == folder  # nothing was left out


def test_a_smaller_minimum_than_that_which_left_copies_out_is_refused(photos, data_dir):
    arguments = {"scale": 2, "data_dir": data_dir, "source": photos, "validation": 0, "downscale": (0.5,)}
    prepare("photos", **arguments, min_size=12)
    with pytest.raises(UserError, match="was prepared with min_size 12"):
        prepare("photos", **arguments, min_size=6)


def test_a_photograph_that_vanishes_is_named_and_the_work_is_kept(photos, data_dir, monkeypatch):
    read, names = Source.read, []

    def note(self, scale):
        names.append(self.name)
        (photos / "9.png").unlink(missing_ok=True)
        return read(self, scale)

    monkeypatch.setattr(Source, "read", note)
    arguments = {"scale": 2, "data_dir": data_dir, "source": photos, "validation": 0, "min_size": 1}
    with pytest.raises(UserError, match=r"1 of 10 images cannot be used: cannot read \S+9\.png: No such file"):
        prepare("photos", **arguments)
    names.clear()
    assert split_sizes(prepare("photos", **arguments)) == {"train": 9}
    assert names == []


def test_a_file_system_that_fails_for_a_while_costs_no_work(photos, data_dir, monkeypatch):
    read, names, write = Source.read, [], stored_pairs._write

    def note(self, scale):
        names.append(self.name)
        return read(self, scale)

    def fail(*_):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Source, "read", note)
    monkeypatch.setattr(stored_pairs, "_write", fail)
    arguments = {"scale": 2, "data_dir": data_dir, "source": photos, "validation": 0, "min_size": 1}
    with pytest.raises(UserError, match="Stale file handle"):
        prepare("photos", **arguments)
    assert len(names) == 10
    monkeypatch.setattr(stored_pairs, "_write", write)
    assert split_sizes(prepare("photos", **arguments)) == {"train": 10}
    assert len(names) == 10


def test_files_of_two_splits_that_agree_in_name_size_and_time_are_told_apart(tmp_path, data_dir, picture):
    folder = tmp_path / "pairs"
    for split, seed in (("train", 0), ("val", 1)):
        write_rgb(folder / split / "HR" / "0.bmp", picture(seed))
        write_rgb(folder / split / "LR" / "0.bmp", matlab_bicubic(picture(seed), 1 / 2))
    for file in folder.rglob("*.bmp"):
        os.utime(file, (1e9, 1e9))  # as archives and images of containers have it
    prepare("pairs", scale=2, data_dir=data_dir, source=folder, min_size=1)
    for split, seed in (("train", 0), ("validation", 1)):
        (pair,) = open_pairs("pairs", scale=2, split=split, data_dir=data_dir)
        np.testing.assert_array_equal(pair.hr, picture(seed))
