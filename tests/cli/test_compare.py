"""The command `a2f compare`."""

import pathlib

import numpy as np
import pytest

from a2f_jax import cli
from a2f_jax.images import read_rgb


def test_compare_draws_bicubic_each_model_and_the_ground_truth(weights, photo, tmp_path):
    picture = tmp_path / "picture.png"
    assert cli.main(["compare", photo, "--weights", weights, "--crop", "4,4,20,20", "-o", str(picture)]) == 0
    height, width, _ = read_rgb(picture).shape
    assert width > 2 * height  # three panels


def test_compressed_lr_changes_every_panel_but_the_ground_truth(weights, photo, tmp_path):
    pictures = [tmp_path / "clean.png", tmp_path / "jpeg.png"]
    for picture, more in zip(pictures, ([], ["--jpeg", "10"]), strict=True):
        assert cli.main(["compare", photo, "--weights", weights, *more, "-o", str(picture)]) == 0
    clean, compressed = (read_rgb(picture) for picture in pictures)
    height, third = clean.shape[0] // 2, clean.shape[1] // 3  # without the captions
    equal = (clean == compressed)[:height].all((0, 2))
    assert [equal[i * third : (i + 1) * third].all() for i in range(3)] == [False, False, True]


def test_weights_that_are_called_bicubic_do_not_replace_the_interpolation(weights, photo, tmp_path):
    (tmp_path / "bicubic").write_bytes(pathlib.Path(weights).read_bytes())
    pictures = [tmp_path / "one.png", tmp_path / "two.png"]
    for name, picture in zip((weights, str(tmp_path / "bicubic")), pictures, strict=True):
        assert cli.main(["compare", photo, "--weights", name, "-o", str(picture)]) == 0
    one, two = (read_rgb(picture) for picture in pictures)
    assert one.shape == two.shape
    above_the_captions = one.shape[0] // 2
    assert np.array_equal(one[:above_the_captions], two[:above_the_captions])


def test_a_crop_too_narrow_for_captions_is_an_error(weights, photo, tmp_path, fails):
    line = fails("compare", photo, "--weights", weights, "--crop", "0,0,5,30", "-o", str(tmp_path / "picture.png"))
    assert "the crop 0,0,5,30 is too narrow for captions" in line
    assert line.endswith("(--crop)")


def test_a_crop_outside_the_image_is_an_error(weights, photo, tmp_path, fails):
    line = fails("compare", photo, "--weights", weights, "--crop", "30,30,20,20", "-o", str(tmp_path / "picture.png"))
    assert "the crop 30,30,20,20 does not lie inside the image of 44×40" in line


@pytest.mark.parametrize(("output", "problem"), [("file/out.png", "cannot write"), ("out.txt", ".png"), ("", "folder")])
def test_an_output_that_cannot_be_written_is_an_error_before_any_work(
    weights, photo, tmp_path, fails, monkeypatch, output, problem
):
    (tmp_path / "file").touch()
    monkeypatch.setattr("a2f_jax.evaluation.comparison.compare", lambda *_, **__: pytest.fail("the comparison started"))
    assert problem in fails("compare", photo, "--weights", weights, "-o", str(tmp_path / output))


def test_a_tilde_stands_for_the_home_folder(weights, photo, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.main(["compare", "~/photo.png", "--weights", weights, "--output=~/picture.png"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").exists()


def test_weights_that_serve_several_scales_are_compared_at_the_given_one(several_scales, weights, photo, tmp_path):
    picture = tmp_path / "picture.png"
    assert cli.main(["compare", photo, "--weights", several_scales, weights, "--scale", "2", "-o", str(picture)]) == 0
    assert picture.exists()


def test_an_existing_file_is_replaced_only_with_overwrite(weights, photo, tmp_path, fails):
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"mine")
    argv = ["compare", photo, "--weights", weights, "--crop", "4,4,20,20", "-o", str(picture)]
    assert "picture.png exists: choose another --output or pass --overwrite" in fails(*argv)
    assert picture.read_bytes() == b"mine"
    assert cli.main([*argv, "--overwrite"]) == 0
    assert read_rgb(picture).size
