"""The command `a2f upscale`."""

import pathlib
import shutil

import pytest
from PIL import Image

from a2f_jax import cli


def size(path):
    with Image.open(path) as image:
        return image.format, image.size


def test_by_default_the_shipped_weights_write_next_to_the_image(tmp_path, capsys):
    Image.new("RGB", (24, 16), (10, 90, 200)).save(tmp_path / "photo.jpg")
    assert cli.main(["upscale", str(tmp_path / "photo.jpg")]) == 0
    assert size(tmp_path / "photo-x4.jpg") == ("JPEG", (96, 64))
    assert capsys.readouterr().out.strip() == str(tmp_path / "photo-x4.jpg")


def test_results_are_named_after_size_and_format(weights, photo, tmp_path):
    argv = ["upscale", photo, "--weights", weights]
    assert cli.main(argv) == 0
    assert size(tmp_path / "photo-x2.png") == ("PNG", (88, 80))
    assert cli.main([*argv, "--scale", "1.5", "--format", "tiff"]) == 0
    assert size(tmp_path / "photo-x1.5.tif") == ("TIFF", (66, 60))
    assert cli.main([*argv, "--size", "66x999"]) == 0
    assert size(tmp_path / "photo-66x999.png") == ("PNG", (66, 60))


def test_by_default_a_folder_is_upscaled_into_a_sibling_folder(weights, photo, tmp_path):
    folder = tmp_path / "photos" / "2026"
    folder.mkdir(parents=True)
    shutil.copy(photo, folder)
    assert cli.main(["upscale", str(tmp_path / "photos"), "--weights", weights]) == 0
    assert size(tmp_path / "photos-x2" / "2026" / "photo.png") == ("PNG", (88, 80))


@pytest.mark.parametrize(("scale", "weights"), [("2", "a2f-l-x2"), ("2.5", "a2f-l-x3"), ("6", "a2f-l-x4")])
def test_the_shipped_weights_of_the_next_larger_scale_are_used(scale, weights, photo, fails):
    # No weights of this variant are shipped yet, so that the error names those that would be used.
    assert f"no weights at {weights}" in fails("upscale", photo, "--model", "a2f-l", "--scale", scale)


def test_several_images_need_an_output(weights, photo, fails, tmp_path):
    before = sorted(tmp_path.iterdir())
    assert "-o FOLDER" in fails("upscale", photo, photo, "--weights", weights)
    assert sorted(tmp_path.iterdir()) == before


def test_a_scale_for_which_other_weights_exist_is_refused(weights, photo, tmp_path, fails):
    line = fails("upscale", photo, "-o", str(tmp_path / "o.png"), "--weights", weights, "--scale", "4")
    assert "is for --scale 2, not 4: choose weights for ×4" in line


def test_verbose_prints_how_an_image_is_computed(weights, photo, tmp_path, capsys):
    argv = ["upscale", photo, "-o", str(pathlib.Path(tmp_path, "o.png")), "--weights", weights, "--verbose"]
    assert cli.main(argv) == 0
    err = capsys.readouterr().err
    assert "44×40 pixels in tiles of 64, states in device memory" in err
    assert "programs compiled" in err


@pytest.mark.parametrize(
    "argv",
    [
        ["--scale", "nan"],
        ["--scale", "0"],
        ["--scale", "inf"],
        ["--tile", "0"],
        ["--size", "100"],
        ["--pixel-limit", "-1"],
    ],
)
def test_invalid_numbers_are_refused(photo, argv, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["upscale", photo, *argv])
    assert stop.value.code == 2
    assert argv[1] in capsys.readouterr().err


def test_an_empty_image_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["upscale", ""])
    assert "the name is empty" in capsys.readouterr().err


def test_a_model_can_be_named_with_its_scale(tmp_path):
    Image.new("RGB", (24, 16), (10, 90, 200)).save(tmp_path / "photo.png")
    assert cli.main(["upscale", str(tmp_path / "photo.png"), "--model", "a2f-sd-x2"]) == 0
    assert size(tmp_path / "photo-x2.png") == ("PNG", (48, 32))
