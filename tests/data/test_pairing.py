import pytest

from a2f_jax.data.pairing import (
    is_lr_folder,
    lr_and_hr_folders,
    pairs_in_folders,
    pairs_in_one_folder,
    pairs_in_two_folders,
)
from a2f_jax.errors import UserError


@pytest.fixture
def files(tmp_path):
    """Returns a function that creates empty files and returns the folder that they are in."""

    def make(*paths):
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
        return tmp_path

    return make


def _matches(sources, folder):
    return {
        source.hr.relative_to(folder).as_posix(): source.lr and source.lr.relative_to(folder).as_posix()
        for source in sources
    }


@pytest.mark.parametrize("name", ["LR", "lr_x4", "LRbicx4", "LR_bicubic", "Flickr2K_LR_bicubic", "bicLRx4", "low_res"])
def test_folders_of_lr_images_are_recognized_by_their_names(name):
    assert is_lr_folder(name)


@pytest.mark.parametrize("name", ["HR", "girlroom", "Flickr2K_HR", "Lower Manhattan", "x4", "color", "All roads"])
def test_other_folders_are_not_taken_for_folders_of_lr_images(name):
    assert not is_lr_folder(name)


def test_folders_of_hr_images_are_recognized_by_their_names(files):
    hr = ["HR", "GT", "GTmod12", "Flickr2K_HR", "original", "HR_x4"]
    folder = files(*(f"{name}/a.png" for name in (*hr, "photos", "hours", "x4", ".HR")), "HR/x2/a.png")
    lr_folders, hr_folders = lr_and_hr_folders(folder)
    assert list(lr_folders) == ["x4"]
    assert sorted(hr_folders) == sorted([*hr, "HR/x2"])


def test_the_folder_of_the_scale_is_used(files):
    folder = files("HR/a.png", *(f"LR_bicubic/X{scale}/ax{scale}.png" for scale in (2, 3, 4)))
    for scale in (2, 3, 4):
        sources = pairs_in_folders(folder, scale)
        assert _matches(sources, folder) == {"HR/a.png": f"LR_bicubic/X{scale}/ax{scale}.png"}


def test_a_digit_after_an_x_belongs_to_the_name_of_an_hr_image_without_a_mark(files):
    folder = files("fox3.png", "box2.png", "cat.png")
    for scale in (2, 3, 4):
        names = [source.hr.name for source in pairs_in_one_folder(folder, scale)]
        assert sorted(names) == ["box2.png", "cat.png", "fox3.png"]


def test_lr_images_beside_hr_images_whose_names_end_like_a_scale_are_found(files):
    folder = files("a.png", "ax2.png", "ax4.png", "fox3.png", "fox3x2.png", "fox3x4.png")
    for scale in (2, 4):
        want = {"a.png": f"ax{scale}.png", "fox3.png": f"fox3x{scale}.png"}
        assert _matches(pairs_in_one_folder(folder, scale), folder) == want
    assert _matches(pairs_in_one_folder(folder, 3), folder) == {"a.png": None, "fox3.png": None}


def test_equal_names_belong_together_even_if_they_end_like_a_scale(files):
    names = ["box2", "fox3", "cat"]
    folder = files(*(f"{kind}/{name}.png" for kind in ("HR", "LR") for name in names))
    want = {f"HR/{name}.png": f"LR/{name}.png" for name in names}
    assert _matches(pairs_in_folders(folder, 4), folder) == want
    assert _matches(pairs_in_two_folders(folder / "HR", folder / "LR", 4), folder) == want


def test_one_folder_may_hold_lr_images_for_several_scales(files):
    folder = files("HR/a.png", "LR/ax2.png", "LR/ax4.png")
    assert _matches(pairs_in_folders(folder, 4), folder) == {"HR/a.png": "LR/ax4.png"}
    assert _matches(pairs_in_folders(folder, 3), folder) == {"HR/a.png": None}


def test_bicubic_lr_images_are_preferred_to_others(files):
    folder = files("HR/a.png", "LR_unknown/X4/ax4.png", "LR_bicubic/X4/ax4.png")
    assert _matches(pairs_in_folders(folder, 4), folder) == {"HR/a.png": "LR_bicubic/X4/ax4.png"}


def test_cropped_hr_images_are_preferred_to_the_original_ones(files):
    folder = files("original/a.png", "GTmod12/a.png", "LRbicx4/a.png")
    assert _matches(pairs_in_folders(folder, 4), folder) == {"GTmod12/a.png": "LRbicx4/a.png"}


def test_the_exact_name_comes_before_a_similar_one(files):
    # Both HR names are `a`, `x3` aside.
    folder = files("HR/a.png", "HR/ax3.png", "X4/ax4.png", "X4/ax3x4.png")
    assert _matches(pairs_in_folders(folder, 4), folder) == {"HR/a.png": "X4/ax4.png", "HR/ax3.png": "X4/ax3x4.png"}


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (("HR/a.png", "LR_blur/a.png", "LR_noise/a.png"), r"several folders of ×4 LR images, LR_blur, LR_noise"),
        (("A_HR/a.png", "B_HR/a.png"), r"several folders of HR images, A_HR, B_HR"),
        (("HR/a.png", "X4/b.png"), r"no LR image in .*X4 belongs to an HR image in .*HR"),
        (("HR/a.png", "HR/b.png", "X4/a.png"), r"X4 has no LR image for b\.png in .*HR"),
        (("HR/a.png", "X4/a.png", "X4/b.png"), r"HR has no HR image for b\.png in .*X4"),
        (("HR/a.png", "HR/a.jpg", "X4/a.png"), r"X4/a\.png belongs to a\.jpg, a\.png in .*HR"),
    ],
)
def test_ambiguous_and_incomplete_folders_are_refused(files, paths, message):
    with pytest.raises(UserError, match=message):
        pairs_in_folders(files(*paths), 4)


def test_results_of_other_methods_beside_marked_images_are_ignored(files):
    folder = files("img_001_SRF_4_HR.png", "img_001_SRF_4_LR.png", "img_001_SRF_4_bicubic.png", "img_001_SRF_4_A+.png")
    (source,) = pairs_in_one_folder(folder, 4)
    assert source.name == "img_001"
    assert _matches([source], folder) == {"img_001_SRF_4_HR.png": "img_001_SRF_4_LR.png"}


def test_a_name_that_ends_like_a_scale_is_no_lr_image_of_another(files):
    folder = files("foxx2.png", "box.png")
    sources = pairs_in_one_folder(folder, 2)
    assert {source.name: source.lr for source in sources} == {"foxx2": None, "box": None}


def test_a_folder_of_lr_images_alone_is_refused(files):
    with pytest.raises(UserError, match=r"has no HR image for a_LR\.png, b_LR\.png"):
        pairs_in_one_folder(files("a_LR.png", "b_LR.png"), 4)


@pytest.mark.parametrize(
    ("hr", "lr", "name"),
    [
        ("a/0801.png", "b/0801x4.png", "0801"),
        ("a/0801.png", "b/X4/0801x4.png", "0801"),
        ("a/0801.png", "b/LR_bicubic/X4/0801x4.png", "0801"),
        ("a/X4/0801.png", "b/X4/0801.jpg", "0801"),
        ("a/img_001_SRF_4_HR.png", "b/img_001_SRF_4_LR.png", "img_001"),
        ("a/baby_GT.png", "b/baby.png", "baby"),
        ("a/baby.png", "b/baby.png", "baby"),
        ("a/boxx2.png", "b/boxx2x4.png", "boxx2"),  # the name of the image ends like a scale
    ],
)
def test_pairs_in_two_folders_are_matched_by_the_names_that_are_in_use(files, hr, lr, name):
    folder = files(hr, lr, "b/X2/else.png", "c/else.png")
    (source,) = pairs_in_two_folders(folder / "a", folder / "b", 4)
    assert source.name == name
    assert _matches([source], folder) == {hr: lr}


def test_one_folder_may_be_given_for_both(files):
    folder = files("img_001_SRF_4_HR.png", "img_001_SRF_4_LR.png", "img_001_SRF_4_A+.png")
    (source,) = pairs_in_two_folders(folder, folder, 4)
    assert _matches([source], folder) == {"img_001_SRF_4_HR.png": "img_001_SRF_4_LR.png"}
    folder = files("hr/a.png") / "hr"
    with pytest.raises(UserError, match="has no LR images for ×2: pass their folder"):
        pairs_in_two_folders(folder, folder, 2)


def test_marked_images_in_a_folder_of_both_kinds_are_chosen(files):
    folder = files("a/1_HR.png", "a/1_LR.png", "b/1_HR.png", "b/1_LR.png", "b/1_other.png")
    assert _matches(pairs_in_two_folders(folder / "a", folder / "b", 2), folder) == {"a/1_HR.png": "b/1_LR.png"}


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (("a/1.png", "b/1x2.png"), r"b has no LR images for ×4 \(found 1x2\.png\): pass the folder that contains them"),
        (("a/1.png", "b/X2/1.png"), r"b has no LR images for ×4 \(found X2\)"),
        (("a/1.png", "b/note.txt"), r"b has no LR images for ×4 \(found nothing\)"),
        (("a/1_LR.png", "b/1.png"), r"a has no HR images for ×4 \(found 1_LR\.png\)"),
        (("a/1.png", "b/blur/X4/1.png", "b/bic/X4/1.png"), r"several folders of ×4 LR images, bic/X4, blur/X4"),
        (("a/1.png", "a/2.png", "b/1.png"), r"b has no LR image for 2\.png in .*a"),
        (("a/1.png", "b/1.png", "b/2.png"), r"a has no HR image for 2\.png in .*b"),
        (("a/1.png", "b/2.png"), r"no LR image in .*b belongs to an HR image in .*a"),
    ],
)
def test_two_folders_that_do_not_correspond_are_refused(files, paths, message):
    folder = files(*paths)
    with pytest.raises(UserError, match=message):
        pairs_in_two_folders(folder / "a", folder / "b", 4)
