"""Comparisons from the command line."""

from a2f_jax import cli
from a2f_jax.images import read_rgb


def test_an_image_is_compared(weights, photo, tmp_path, fails):
    picture = tmp_path / "picture.png"
    assert cli.main(["compare", photo, "--weights", weights, "--crop", "4,4,20,20", "-o", str(picture)]) == 0
    height, width, _ = read_rgb(picture).shape
    assert width > 2 * height  # three panels
    line = fails("compare", photo, "--weights", weights, "--crop", "30,30,20,20", "-o", str(picture))
    assert "inside the image" in line
