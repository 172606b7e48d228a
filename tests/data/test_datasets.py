import errno
import json
import os
import pathlib

import numpy as np
import pytest

from a2f_jax.data import matlab_bicubic, open_cache, open_pairs, prepare
from a2f_jax.data.discovery import find
from a2f_jax.data.sources import Source
from a2f_jax.errors import UserError
from a2f_jax.evaluation.benchmark import Bicubic, evaluate
from a2f_jax.images import write_rgb


@pytest.fixture
def set5(tmp_path, picture):
    """A folder with a ×2 `Set5` of two images in the layout of SelfExSR."""
    for i in (1, 2):
        name = tmp_path / "benchmarks" / "Set5" / "image_SRF_2" / f"img_{i:03}_SRF_2"
        write_rgb(f"{name}_HR.png", picture(i))
        write_rgb(f"{name}_LR.png", picture(10 + i, 12, 18))
    return tmp_path / "benchmarks"


def test_the_sample_is_prepared_when_it_is_first_opened(data_dir, assert_same):
    data_dir.mkdir()
    pairs = open_pairs("sample", scale=4, data_dir=data_dir)
    assert [pair.name for pair in pairs] == [
        "astronaut",
        "chelsea",
        "coffee",
        "hubble_deep_field",
        "motorcycle_left",
        "rocket",
    ]
    assert_same(pairs, find("sample", None, 4)["validation"], 4)
    before = {f: f.stat().st_mtime_ns for f in data_dir.rglob("*") if f.is_file()}
    assert len(open_pairs("sample", scale=4, split="train", data_dir=data_dir)) == 6
    assert {f: f.stat().st_mtime_ns for f in data_dir.rglob("*") if f.is_file()} == before


def test_benchmark_sets_can_be_read_with_or_without_preparation(set5, data_dir, assert_same):
    prepare("set5", scale=2, data_dir=data_dir, source=set5)
    sources = find("set5", set5, 2)["test"]
    for folder in (data_dir, set5, set5 / "Set5"):
        for split in (None, "test"):
            assert_same(open_pairs("Set5", scale=2, split=split, data_dir=folder), sources, 2)


def test_errors_about_missing_datasets_and_splits_name_the_remedy(photos, set5, data_dir):
    prepare("photos", scale=2, data_dir=data_dir, source=photos, validation=0, min_size=1)
    for name, scale, split, folder, message in (
        ("photos", 2, None, data_dir, r"no split 'validation', only train: prepare the dataset again, and hold out"),
        (
            "photos",
            4,
            None,
            data_dir,
            rf"`a2f data prepare photos --scale 4 --source DIR --data-dir {data_dir}`",
        ),
        ("div2k", 4, None, data_dir, rf"`a2f data prepare div2k --scale 4 --data-dir {data_dir}`"),
        ("set5", 2, "train", set5, "set5 has no split 'train'"),
        (
            "set5",
            2,
            None,
            data_dir / "none",
            "set5 ×2 is not prepared in .*none.*: pass the folder that contains Set5/, or ",
        ),
        ("set14", 2, None, set5, "does not contain set14 ×2"),
    ):
        with pytest.raises(UserError, match=message):
            open_pairs(name, scale=scale, split=split, data_dir=folder)


def test_the_sample_is_not_prepared_in_a_folder_that_does_not_exist(tmp_path, monkeypatch):
    message = (
        "none, which does not exist: pass another folder, or .*`a2f data prepare sample --scale 4 --data-dir .*none`"
    )
    with pytest.raises(UserError, match=message) as error:
        open_pairs("sample", scale=4, data_dir=tmp_path / "none")
    assert error.value.parameter == "data_dir"
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("A2F_DATA_DIR", str(tmp_path / "cache"))  # where datasets are to be stored, also the first
    assert len(open_pairs("sample", scale=4)) == 6


def test_pairs_are_a_sequence(photos, data_dir):
    prepare("photos", scale=2, data_dir=data_dir, source=photos, validation=0, min_size=1)
    pairs = open_pairs("photos", scale=2, split="train", data_dir=data_dir)
    assert [pair.name for pair in pairs] == [f"{i}.png" for i in range(10)]
    assert pairs[-1].name == "9.png"
    for index in (10, -11):
        with pytest.raises(IndexError):
            pairs[index]


def test_div2k_prepared_by_tfds_can_be_read(tfds_div2k, picture):
    assert prepare("div2k", scale=4, data_dir=tfds_div2k) == tfds_div2k / "div2k/bicubic_x4/2.0.0"
    train = open_pairs("div2k", scale=4, split="train", data_dir=tfds_div2k)
    # tfds shuffles the images and stores no names.
    first, second = sorted(train, key=lambda pair: (pair.hr != picture(1)).any())
    (third,) = open_pairs("div2k", scale=4, data_dir=tfds_div2k)
    for i, pair in ((1, first), (2, second), (801, third)):
        np.testing.assert_array_equal(pair.hr, picture(i))
        np.testing.assert_array_equal(pair.lr, 255 - matlab_bicubic(picture(i), 1 / 4))
    assert {pair.name for pair in train} == {"0000", "0001"}


def test_tfrecord_files_are_refused(tfds_div2k):
    folder = tfds_div2k / "div2k/bicubic_x4/2.0.0"
    info = json.loads((folder / "dataset_info.json").read_text())
    assert info["fileFormat"] == "array_record"
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    for file in folder.glob("*array_record*"):
        file.rename(folder / file.name.replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match=r"bicubic_x4/2\.0\.0 is not in array_record format: prepare the dataset again"):
        open_pairs("div2k", scale=4, data_dir=tfds_div2k)


def _flip(file: pathlib.Path, at: int):
    content = bytearray(file.read_bytes())
    content[at] ^= 255
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "dataset_info.json").write_text("{"),
        lambda folder: (folder / "photos-train.array_record-00000").unlink(),
        lambda folder: os.truncate(folder / "photos-train.array_record-00000", 20_000),
        lambda folder: _flip(folder / "photos-train.array_record-00000", 300),
    ],
    ids=["info", "missing", "truncated", "flipped"],
)
def test_a_damaged_dataset_is_named(photos, data_dir, damage, assert_same):
    folder = prepare("photos", scale=2, data_dir=data_dir, source=photos, validation=0, min_size=1)
    damage(folder)
    with pytest.raises(UserError, match=r"photos/x2/1\.0\.0 is damaged.*overwrite it"):
        list(open_pairs("photos", scale=2, split="train", data_dir=data_dir))
    prepare("photos", scale=2, data_dir=data_dir, source=photos, validation=0, min_size=1, overwrite=True)
    pairs = open_pairs("photos", scale=2, split="train", data_dir=data_dir)
    assert_same(pairs, find("photos", photos, 2)["train"], 2)


def test_a_dataset_that_cannot_be_read_is_not_called_damaged(photos, data_dir):
    folder = prepare("photos", scale=2, data_dir=data_dir, source=photos, validation=0, min_size=1)
    (file,) = folder.glob("*.array_record*")
    file.unlink()
    file.symlink_to(file)  # unlike a missing permission, this also stops an administrator
    with pytest.raises(UserError, match=rf"^cannot read {file}: {os.strerror(errno.ELOOP)}$"):
        open_pairs("photos", scale=2, split="train", data_dir=data_dir)[0]
    (folder / "dataset_info.json").unlink()
    with pytest.raises(UserError, match=rf"^cannot read {file}: "):  # rather than that it is not prepared
        open_pairs("photos", scale=2, split="train", data_dir=data_dir)
    file.unlink()
    os.mkfifo(file)  # which is no part of a dataset, and would wait for a writer
    with pytest.raises(UserError, match="is not prepared in"):
        open_pairs("photos", scale=2, split="train", data_dir=data_dir)


def test_pairs_are_indexed_by_integers_and_slices(set5, data_dir):
    prepare("set5", scale=2, data_dir=data_dir, source=set5)
    for folder in (data_dir, set5):
        pairs = open_pairs("set5", scale=2, data_dir=folder)
        np.testing.assert_array_equal(pairs[np.int64(-1)].lr, pairs[1].lr)
        assert [pair.name for pair in pairs[::-1]] == [pairs[1].name, pairs[0].name]
        for index in (0.0, "0"):
            with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
                pairs[index]


def test_a_lack_of_memory_is_not_told_as_damage(photos, data_dir, monkeypatch):
    prepare("photos", scale=2, data_dir=data_dir, source=photos, validation=0, min_size=1)
    pairs = open_pairs("photos", scale=2, split="train", data_dir=data_dir)

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("a2f_jax.data.datasets.Image.open", fail)
    with pytest.raises(MemoryError):
        pairs[0]


def test_hr_images_that_are_smaller_than_their_lr_images_are_named(photos, data_dir, monkeypatch):
    # Datasets that others have written with tensorflow-datasets may contain them.
    read = Source.read

    def cut(self, scale):
        pair = read(self, scale)
        return pair._replace(hr=pair.hr[1:])

    monkeypatch.setattr(Source, "read", cut)
    prepare("photos", scale=2, data_dir=data_dir, source=photos, validation=0, min_size=1)
    message = r"image 0 in \S+/photos/x2/1\.0\.0 has an HR image of 40×23 pixels, but LR ×2 is 40×24: prepare"
    with pytest.raises(UserError, match=message):
        open_cache("photos", scale=2, data_dir=data_dir)


def test_images_of_the_same_name_in_two_splits_of_a_folder_are_told_apart(tmp_path, picture):
    for split, names in (("train", "01"), ("val", "12")):
        for kind, divisor in (("HR", 1), ("LR", 2)):
            folder = tmp_path / "photos" / split / kind
            folder.mkdir(parents=True)
            for name in names:
                write_rgb(folder / f"{name}.png", picture(int(name), 32 // divisor, 24 // divisor))
    pairs = open_pairs(tmp_path / "photos", scale=2)
    assert [pair.name for pair in pairs] == ["train/0", "train/1", "validation/1", "validation/2"]
    (row,) = evaluate(Bicubic(2), [tmp_path / "photos"])
    assert row["images"] == 4
