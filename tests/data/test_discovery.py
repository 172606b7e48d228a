import pathlib
import shutil

import numpy as np
import pytest

from a2f_jax.data import matlab_bicubic
from a2f_jax.data.discovery import benchmark, find, unsupported_images
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


def test_lr_is_computed_only_if_there_is_none(selfexsr, edsr, picture):
    for file in [*selfexsr.rglob("*_LR.png"), *(edsr / "LR_bicubic/X4").iterdir()]:
        file.unlink()
    for folder, seed in ((selfexsr, 1), (edsr, 0)):
        pair = benchmark(folder, "b100", 4)["test"][0].read(4)
        np.testing.assert_array_equal(pair.lr, matlab_bicubic(picture(seed), 1 / 4))


def test_images_without_a_counterpart_are_refused(selfexsr, edsr):
    next(selfexsr.rglob("*001*_LR.png")).unlink()
    with pytest.raises(UserError, match=r"image_SRF_4 has no LR image for img_001_SRF_4_HR\.png: add or remove"):
        benchmark(selfexsr, "b100", 4)
    (edsr / "LR_bicubic/X4/birdx4.png").unlink()
    with pytest.raises(UserError, match=r"LR_bicubic/X4 has no LR image for bird\.png in .*HR: add or remove"):
        benchmark(edsr, "b100", 4)
    (edsr / "HR/bird.png").unlink()
    (edsr / "HR/lenna.png").rename(edsr / "HR/lena.png")
    with pytest.raises(
        UserError, match=r"no LR image in .*X4 belongs to an HR image in .*HR \(.*lennax4\.png and lena\.png"
    ):
        benchmark(edsr, "b100", 4)


def test_the_edsr_layout_needs_only_hr(edsr, picture):
    shutil.rmtree(edsr / "LR_bicubic")
    pair = benchmark(edsr, "b100", 3)["test"][1].read(3)
    np.testing.assert_array_equal(pair.lr, matlab_bicubic(picture(1), 1 / 3))


def test_an_unknown_layout_is_reported_with_what_was_expected_and_found(selfexsr):
    with pytest.raises(
        UserError, match=r"BSD100 does not contain b100 ×3: .*image_SRF_3.*HR/\*\.png.* found image_SRF_4$"
    ):
        benchmark(selfexsr, "b100", 3)


def test_photographs_are_found_in_subfolders(photos, picture):
    write_rgb(photos / "more" / "deep.JPG", picture(0))
    write_rgb(photos / ".hidden.png", picture(0))
    write_rgb(photos / ".thumbnails" / "0.png", picture(0))
    (photos / "notes.txt").write_text("no photograph")
    splits = find("photos", photos, 4)
    assert list(splits) == ["train"]
    assert [source.name for source in splits["train"]] == [*(f"{i}.png" for i in range(10)), "more/deep.JPG"]
    np.testing.assert_array_equal(splits["train"][3].read(4).hr, read_rgb(photos / "3.png")[:24, :36])


def test_photographs_are_found_in_linked_folders(photos, tmp_path):
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "linked").symlink_to(photos)
    (photos / "old.cr2").touch()
    assert [source.name for source in find("mine", folder, 2)["train"]] == [f"linked/{i}.png" for i in range(10)]
    assert unsupported_images(folder) == ["linked/old.cr2"]


def test_photographs_for_validation_are_not_trained_on(tmp_path, picture):
    write_rgb(tmp_path / "val/HR/0.png", picture(0))
    with pytest.raises(UserError, match=f"no images but those in {tmp_path}/val, which by its name are for validation"):
        find("photos", tmp_path, 4)
    assert [source.name for source in find("photos", tmp_path / "val", 4)["train"]] == ["HR/0.png"]
    write_rgb(tmp_path / "more.png", picture(1))  # a folder that only happens to have this name
    assert len(find("photos", tmp_path, 4)["train"]) == 2


def test_images_in_formats_that_cannot_be_read_are_named_as_left_out(photos):
    (photos / "IMG_1.DNG").touch()
    assert unsupported_images(photos) == ["IMG_1.DNG"]


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no images"):
        find("photos", tmp_path, 4)
    with pytest.raises(UserError, match=r"/none is not a folder"):
        find("photos", tmp_path / "none", 4)
    with pytest.raises(UserError, match="photos is prepared from a folder of images"):
        find("photos", None, 4)


def test_images_with_the_same_name_are_refused(edsr, picture):
    write_rgb(edsr / "HR" / "bird.bmp", picture(0))
    with pytest.raises(UserError, match=r"bird\.\w+ and .*bird\.\w+ have the same name|belongs to bird"):
        find("b100", edsr, 4)


# The folder passed, the file of HR and that of LR, below a folder of data.
LAYOUTS = {
    "EDSR, lower case": ("Set5", "Set5/HR/a.png", "Set5/LR_bicubic/x4/ax4.png"),
    "EDSR, names without scale": ("Set5", "Set5/HR/a.png", "Set5/LR_bicubic/x4/a.png"),
    "folder of the scale": ("Set5", "Set5/HR/a.png", "Set5/X4/a.png"),
    "upper case suffix": ("Set5", "Set5/HR/a.png", "Set5/X4/ax4.PNG"),
    "BasicSR": ("Set5", "Set5/GTmod12/a.png", "Set5/LRbicx4/a.png"),
    "BasicSR, original": ("Set5", "Set5/original/a.png", "Set5/LRbicx4/a.png"),
    "LR without scale": ("Set5", "Set5/HR/a.png", "Set5/LR/a.png"),
    "marked names": ("Set5", "Set5/HR/a_HR_x4.png", "Set5/LR/a_LRBI_x4.png"),
    "flat with LR beside": ("Set5", "Set5/a.png", "Set5/ax4.png"),
    "flat with marked names": ("Set5", "Set5/a_GT.png", "Set5/a_LR.png"),
    "flat with an LR folder": ("Set5", "Set5/a.png", "Set5/LR_x4/a.png"),
    "one level up": (".", "Set5/HR/a.png", "Set5/LR_bicubic/X4/ax4.png"),
    "two levels up": (".", "benchmark/Set5/HR/a.png", "benchmark/Set5/LR_bicubic/X4/ax4.png"),
}


@pytest.mark.parametrize(("given", "hr", "lr"), LAYOUTS.values(), ids=LAYOUTS)
def test_the_lr_images_of_a_benchmark_set_are_used(tmp_path, picture, given, hr, lr):
    # HR is not a multiple of the scale.
    write_rgb(tmp_path / "data" / hr, picture(0, 27, 38))
    (tmp_path / "data" / lr).parent.mkdir(parents=True, exist_ok=True)
    write_rgb(tmp_path / "lr.png", picture(1, 6, 9))
    (tmp_path / "lr.png").rename(tmp_path / "data" / lr)
    (source,) = benchmark(tmp_path / "data" / given, "set5", 4)["test"]
    pair = source.read(4)
    np.testing.assert_array_equal(pair.lr, picture(1, 6, 9))
    np.testing.assert_array_equal(pair.hr, picture(0, 27, 38)[:24, :36])


def test_the_images_of_a_flat_folder_are_hr(tmp_path, picture):
    write_rgb(tmp_path / "Set5" / "a.png", picture(0))
    (source,) = benchmark(tmp_path, "set5", 4)["test"]
    np.testing.assert_array_equal(source.read(4).lr, matlab_bicubic(picture(0), 1 / 4))


def test_a_folder_of_another_benchmark_set_is_refused(edsr):
    with pytest.raises(UserError, match="B100 is B100, not set5"):
        benchmark(edsr, "set5", 4)


def test_two_folders_of_a_benchmark_set_are_refused(tmp_path, picture):
    for name in ("b100", "BSD100"):
        write_rgb(tmp_path / name / "HR" / "a.png", picture(0))
    with pytest.raises(UserError, match=r"b100 is in .*BSD100, .*b100: pass one"):
        benchmark(tmp_path, "b100", 4)


@pytest.mark.parametrize("lr", ["LR/{}.png", "LR_bicubic/X2/{}x2.png", "LRx2/{}.png"])
def test_photographs_with_lr_beside_are_pairs(tmp_path, picture, lr):
    for i in range(3):
        write_rgb(tmp_path / "HR" / f"{i}.png", picture(i))
        write_rgb(tmp_path / lr.format(i), picture(10 + i, 12, 18))
    splits = find("paired", tmp_path, 2)
    assert [source.name for source in splits.pop("train")] == ["0", "1", "2"]
    assert not splits
    pair = find("paired", tmp_path, 2)["train"][1].read(2)
    np.testing.assert_array_equal(pair.lr, picture(11, 12, 18))
    np.testing.assert_array_equal(pair.hr, picture(1))


def test_pairs_may_have_splits_of_their_own(tmp_path, picture):
    for i, split in enumerate(("train", "val")):
        write_rgb(tmp_path / split / "HR" / "a.png", picture(i))
        write_rgb(tmp_path / split / "LR" / "a.png", picture(10 + i, 12, 18))
    splits = find("paired", tmp_path, 2)
    assert list(splits) == ["train", "validation"]
    for i, (source,) in enumerate(splits.values()):
        np.testing.assert_array_equal(source.read(2).lr, picture(10 + i, 12, 18))


@pytest.mark.parametrize(("hr", "lr"), [("{}_HR.png", "{}_LR.png"), ("{}.png", "{}_LR.png"), ("{}.png", "{}x2.png")])
def test_photographs_with_lr_side_by_side_are_pairs(tmp_path, picture, hr, lr):
    for i in range(3):
        write_rgb(tmp_path / hr.format(i), picture(i))
        write_rgb(tmp_path / lr.format(i), picture(10 + i, 12, 18))
    sources = find("paired", tmp_path, 2)["train"]
    assert [source.name for source in sources] == ["0", "1", "2"]
    for i, source in enumerate(sources):
        np.testing.assert_array_equal(source.read(2).lr, picture(10 + i, 12, 18))


def test_photographs_whose_names_look_like_lr_are_photographs(photos, picture):
    for name in ("DSC_1_LR.jpg", "0x2.png"):  # an export of Lightroom, and an enlarged copy of another photograph
        write_rgb(photos / name, picture(0))
    assert len(find("photos", photos, 2)["train"]) == 12
    (photos / "DSC_1_LR.jpg").rename(photos / "0_LR.png")  # now the LR image of another
    with pytest.raises(UserError, match=r"has no LR image for 1\.png, 2\.png"):
        find("photos", photos, 2)


@pytest.mark.parametrize("folder", ["LR", "scenes/LR_bicubic/X4"])
def test_lr_images_are_not_taken_for_photographs(photos, picture, folder):
    write_rgb(photos / folder / "0.png", picture(0))
    with pytest.raises(UserError, match=f"{folder} appears to contain LR images"):
        find("photos", photos, 4)


def test_folders_without_permission_are_passed_over_in_the_search(edsr, monkeypatch):
    forbidden = edsr.parent.parent / "forbidden"
    forbidden.mkdir()
    iterdir = pathlib.Path.iterdir

    def refuse(folder):  # instead of chmod, which does not bind root
        if folder == forbidden:
            raise PermissionError
        return iterdir(folder)

    monkeypatch.setattr(pathlib.Path, "iterdir", refuse)
    assert len(benchmark(edsr.parent.parent, "b100", 4)["test"]) == 2
