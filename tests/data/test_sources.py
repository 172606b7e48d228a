import os
import shutil

import numpy as np
import pytest

from a2f_jax.data import matlab_bicubic
from a2f_jax.data.sources import Source, benchmark, dataset_name, find, fingerprint, sample
from a2f_jax.errors import UserError
from a2f_jax.images import read_rgb, write_rgb


@pytest.fixture
def selfexsr(tmp_path, picture):
    folder = tmp_path / "benchmarks" / "BSD100" / "image_SRF_4"
    for i in (1, 2):
        write_rgb(folder / f"img_{i:03}_SRF_4_HR.png", picture(i))
        write_rgb(folder / f"img_{i:03}_SRF_4_LR.png", picture(10 + i, 6, 9))
    return folder.parent


@pytest.fixture
def edsr(tmp_path, picture):
    folder = tmp_path / "benchmark" / "B100"
    for i, name in enumerate(("bird", "lenna")):
        write_rgb(folder / "HR" / f"{name}.png", picture(i))
        write_rgb(folder / "LR_bicubic" / "X4" / f"{name}x4.png", picture(10 + i, 6, 9))
    return folder


@pytest.mark.parametrize("parent", [False, True])
@pytest.mark.parametrize(
    ("layout", "names", "seeds"), [("selfexsr", ["img_001", "img_002"], (1, 2)), ("edsr", ["bird", "lenna"], (0, 1))]
)
def test_both_layouts_of_a_benchmark_set_are_recognized(request, picture, layout, names, seeds, parent):
    folder = request.getfixturevalue(layout)
    splits = benchmark(folder.parent if parent else folder, "b100", 4)
    assert list(splits) == ["test"]
    pairs = [source.read(4) for source in splits["test"]]
    assert [pair.name for pair in pairs] == names
    for pair, seed in zip(pairs, seeds, strict=True):
        np.testing.assert_array_equal(pair.hr, picture(seed))
        np.testing.assert_array_equal(pair.lr, picture(10 + seed, 6, 9))


def test_missing_lr_is_computed(selfexsr, edsr, picture):
    for file in [*selfexsr.rglob("*001*_LR.png"), edsr / "LR_bicubic/X4/birdx4.png"]:
        file.unlink()
    for folder, seed in ((selfexsr, 1), (edsr, 0)):
        made, given = (source.read(4) for source in benchmark(folder, "b100", 4)["test"])
        np.testing.assert_array_equal(made.lr, matlab_bicubic(picture(seed), 1 / 4))
        np.testing.assert_array_equal(given.lr, picture(11 + seed, 6, 9))


def test_the_edsr_layout_needs_only_hr(edsr, picture):
    shutil.rmtree(edsr / "LR_bicubic")
    pair = benchmark(edsr, "b100", 3)["test"][1].read(3)
    np.testing.assert_array_equal(pair.lr, matlab_bicubic(picture(1), 1 / 3))


def test_an_unknown_layout_is_reported_with_what_was_expected_and_found(selfexsr):
    with pytest.raises(
        UserError, match=r"BSD100 does not contain b100 ×3: .*image_SRF_3.*HR/\*\.png.* found image_SRF_4$"
    ):
        benchmark(selfexsr, "b100", 3)


def test_hr_is_cropped_to_a_multiple_of_the_scale(tmp_path, picture):
    write_rgb(tmp_path / "image.png", picture(0, 23, 30))
    pair = Source("image", tmp_path / "image.png").read(4)
    np.testing.assert_array_equal(pair.hr, picture(0, 23, 30)[:20, :28])
    np.testing.assert_array_equal(pair.lr, matlab_bicubic(pair.hr, 1 / 4))


def test_lr_of_another_size_is_refused(selfexsr, picture):
    write_rgb(selfexsr / "image_SRF_4/img_001_SRF_4_LR.png", picture(0, 6, 8))
    with pytest.raises(
        UserError, match=r"img_001_SRF_4_LR\.png is 8×6 pixels, but .*_HR\.png at 1/4 .* is 9×6: replace"
    ):
        benchmark(selfexsr, "b100", 4)["test"][0].read(4)


def test_an_image_smaller_than_the_scale_is_refused(tmp_path, picture):
    write_rgb(tmp_path / "image.png", picture(0, 40, 3))
    with pytest.raises(UserError, match=r"image\.png is too small"):
        Source("image", tmp_path / "image.png").read(4)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("scale", [2, 4])
def test_div2k_is_recognized_as_published(div2k, picture, packed, scale):
    splits = find("div2k", div2k(packed), scale, 0)
    assert {split: [source.name for source in sources] for split, sources in splits.items()} == {
        "train": ["0001", "0002"],
        "validation": ["0801"],
    }
    for source in splits["train"] + splits["validation"]:
        pair = source.read(scale)
        np.testing.assert_array_equal(pair.hr, picture(int(source.name)))
        np.testing.assert_array_equal(pair.lr, 255 - matlab_bicubic(pair.hr, 1 / scale))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "DIV2K_valid_HR.zip").unlink(), r"neither DIV2K_valid_HR/ nor DIV2K_valid_HR\.zip"),
        (lambda d: (d / "DIV2K_train_LR_bicubic_X4.zip").unlink(), "neither DIV2K_train_LR_bicubic_X4/ nor"),
        (lambda d: (d / "DIV2K_train_HR.zip").write_bytes(b"PK"), r"DIV2K_train_HR\.zip is not a complete zip archive"),
        (lambda d: os.truncate(d / "DIV2K_train_HR.zip", 1000), r"DIV2K_train_HR\.zip is not a complete zip archive"),
    ],
)
def test_incomplete_div2k_is_refused(div2k, damage, message):
    folder = div2k(packed=True)
    damage(folder)
    with pytest.raises(UserError, match=message):
        find("div2k", folder, 4, 0)


def test_div2k_with_a_missing_image_is_refused(div2k):
    folder = div2k(packed=False)
    (folder / "DIV2K_train_LR_bicubic/X4/0002x4.png").unlink()
    with pytest.raises(UserError, match=r"has no 0002x4\.png for 0002\.png"):
        find("div2k", folder, 4, 0)


def test_a_damaged_image_in_an_archive_is_named(div2k):
    archive = div2k(packed=True) / "DIV2K_train_HR.zip"
    content = bytearray(archive.read_bytes())
    content[content.index(b"IDAT") + 40] ^= 255
    archive.write_bytes(content)
    with pytest.raises(UserError, match=r"DIV2K_train_HR\.zip/DIV2K_train_HR/0001\.png"):
        find("div2k", archive.parent, 4, 0)["train"][0].read(4)


def test_photographs_are_found_in_subfolders(photos, picture):
    write_rgb(photos / "more" / "deep.JPG", picture(0))
    write_rgb(photos / ".hidden.png", picture(0))
    write_rgb(photos / ".thumbnails" / "0.png", picture(0))
    (photos / "notes.txt").write_text("no photograph")
    splits = find("photos", photos, 4, 0)
    assert list(splits) == ["train"]
    assert [source.name for source in splits["train"]] == [*(f"{i}.png" for i in range(10)), "more/deep.JPG"]
    np.testing.assert_array_equal(splits["train"][3].read(4).hr, read_rgb(photos / "3.png")[:24, :36])


def test_the_validation_split_depends_on_the_names_alone(photos, tmp_path):
    splits = find("photos", photos, 4, 3)
    names = {split: {source.name for source in sources} for split, sources in splits.items()}
    assert len(names["validation"]) == 3
    assert not names["train"] & names["validation"]
    assert names["train"] | names["validation"] == {f"{i}.png" for i in range(10)}

    # In another folder, with different pixels, and with fewer images held out.
    for i in range(10):
        shutil.copy(photos / f"{9 - i}.png", tmp_path / f"{i}.png")
    shutil.rmtree(photos)
    assert {source.name for source in find("photos", tmp_path, 4, 3)["validation"]} == names["validation"]
    assert {source.name for source in find("photos", tmp_path, 4, 2)["validation"]} < names["validation"]


@pytest.mark.parametrize(
    ("validation", "message"), [(10, "10 images .* too few to hold out 10"), (-1, "use 0 or more")]
)
def test_an_impossible_number_of_validation_images_is_refused(photos, validation, message):
    with pytest.raises(UserError, match=message):
        find("photos", photos, 4, validation)


def test_holding_out_images_of_a_dataset_with_splits_is_refused(edsr):
    with pytest.raises(UserError, match="b100 has its own splits: omit it"):
        find("b100", edsr, 4, 5)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="has 0 images"):
        find("photos", tmp_path, 4, 0)
    with pytest.raises(UserError, match=r"/none is not a folder"):
        find("photos", tmp_path / "none", 4, 0)
    with pytest.raises(UserError, match="pass it as source=DIR"):
        find("photos", None, 4, 0)


def test_images_with_the_same_name_are_refused(edsr, picture):
    write_rgb(edsr / "HR" / "bird.bmp", picture(0))
    with pytest.raises(UserError, match=r"bird\.\w+ and .*bird\.\w+ have the same name"):
        find("b100", edsr, 4, 0)


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


def test_the_fingerprint_changes_with_the_files(photos, tmp_path, picture):
    def of(folder, validation=2):
        return fingerprint(find("photos", folder, 4, validation))

    first = of(photos)
    assert of(photos) == first
    assert of(photos, validation=3) != first
    elsewhere = shutil.copytree(photos, tmp_path / "elsewhere")
    assert of(elsewhere) == first
    (elsewhere / "0.png").rename(elsewhere / "zero.png")
    assert of(elsewhere) != first
    write_rgb(photos / "0.png", picture(100, 24, 40))
    assert of(photos) != first


def test_the_fingerprint_of_archives_depends_on_their_contents(div2k):
    folder = div2k(packed=True)
    first = fingerprint(find("div2k", folder, 4, 0))
    for archive in folder.iterdir():
        os.utime(archive, (0, 0))
    assert fingerprint(find("div2k", folder, 4, 0)) == first
    assert fingerprint(find("div2k", folder, 2, 0)) != first
