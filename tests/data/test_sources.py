import os
import pathlib
import shutil

import numpy as np
import pytest

from a2f_jax.data import matlab_bicubic
from a2f_jax.data.discovery import find
from a2f_jax.data.sources import Source, dataset_name, fingerprint, sample
from a2f_jax.errors import UserError
from a2f_jax.images import read_rgb, write_rgb


def test_hr_is_cropped_to_a_multiple_of_the_scale(tmp_path, picture):
    write_rgb(tmp_path / "image.png", picture(0, 23, 30))
    pair = Source("image", tmp_path / "image.png").read(4)
    np.testing.assert_array_equal(pair.hr, picture(0, 23, 30)[:20, :28])
    np.testing.assert_array_equal(pair.lr, matlab_bicubic(pair.hr, 1 / 4))


@pytest.mark.parametrize(
    ("size", "lr_size", "kept"),
    [((23, 30), (5, 7), (5, 7)), ((23, 30), (6, 8), (5, 7)), ((23, 30), (3, 6), (3, 6)), ((24, 36), (6, 9), (6, 9))],
    ids=["cropped to a multiple of the scale", "not cropped", "cropped to a multiple of 12", "a multiple already"],
)
def test_hr_and_lr_are_cropped_to_the_area_that_both_show(tmp_path, picture, size, lr_size, kept):
    hr, lr = picture(0, *size), picture(1, *lr_size)
    write_rgb(tmp_path / "hr.png", hr)
    write_rgb(tmp_path / "lr.png", lr)
    pair = Source("image", tmp_path / "hr.png", tmp_path / "lr.png").read(4)
    np.testing.assert_array_equal(pair.lr, lr[: kept[0], : kept[1]])
    np.testing.assert_array_equal(pair.hr, hr[: 4 * kept[0], : 4 * kept[1]])


@pytest.mark.parametrize("lr_size", [(6, 8), (12, 18), (24, 36)])
def test_lr_of_another_size_is_refused(tmp_path, picture, lr_size):
    write_rgb(tmp_path / "hr.png", picture(0, 24, 36))
    write_rgb(tmp_path / "lr.png", picture(0, *lr_size))
    with pytest.raises(UserError, match=rf"lr\.png is {lr_size[1]}×{lr_size[0]} pixels, .*hr\.png at 1/4 .* is 9×6: "):
        Source("image", tmp_path / "hr.png", tmp_path / "lr.png").read(4)


def test_an_image_smaller_than_the_scale_is_refused(tmp_path, picture):
    write_rgb(tmp_path / "image.png", picture(0, 40, 3))
    with pytest.raises(UserError, match=r"image\.png is too small"):
        Source("image", tmp_path / "image.png").read(4)


def test_the_splits_of_the_sample_share_no_pixels():
    splits = sample()
    for train, validation in zip(splits["train"], splits["validation"], strict=True):
        whole = read_rgb(train.hr)
        parts = np.concatenate([train.read(1).hr, validation.read(1).hr], 1)
        np.testing.assert_array_equal(parts, whole)
        assert train.read(1).hr.shape[1] == pytest.approx(0.75 * whole.shape[1], abs=0.5)


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("set5", "set5"),
        ("Set14", "set14"),
        ("BSD100", "b100"),
        ("B100", "b100"),
        ("open-photos", "open_photos"),
        ("My_Photos-2", "my_photos_2"),
    ],
)
def test_dataset_names_are_normalized(written, stored):
    assert dataset_name(written) == stored


@pytest.mark.parametrize("name", ["", "5set", "a/b", "..", "a b", "ä"])
def test_invalid_dataset_names_are_refused(name):
    with pytest.raises(UserError, match="is not a valid dataset name"):
        dataset_name(name)


def test_a_path_in_place_of_a_name_is_refused():
    with pytest.raises(TypeError, match=r"is not the name of a dataset, .*: pass a folder as `source` or `data_dir`"):
        dataset_name(pathlib.Path("photos"))


def test_the_fingerprint_changes_with_the_files(photos, tmp_path, picture):
    def of(folder):
        return fingerprint(find("photos", folder, 4))

    first = of(photos)
    assert of(photos) == first
    elsewhere = shutil.copytree(photos, tmp_path / "elsewhere")
    assert of(elsewhere) == first
    (elsewhere / "0.png").rename(elsewhere / "zero.png")
    assert of(elsewhere) != first
    write_rgb(photos / "0.png", picture(100, 24, 40))
    assert of(photos) != first


def test_the_fingerprint_of_archives_depends_on_their_contents(div2k):
    folder = div2k(packed=True)
    first = fingerprint(find("div2k", folder, 4))
    for archive in folder.iterdir():
        os.utime(archive, (0, 0))
    assert fingerprint(find("div2k", folder, 4)) == first
    assert fingerprint(find("div2k", folder, 2)) != first
