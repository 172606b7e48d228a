"""Simulated JPEG beside real JPEG files."""

import io

import jax
import numpy as np
import pytest
import skimage.data
from PIL import Image

from a2f_jax.data.jpeg_simulation import jpeg, quantization_tables

compress = jax.jit(jpeg)


def saved(image, quality, subsampling):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0" if subsampling else "4:4:4")
    return Image.open(file)


@pytest.fixture(scope="module")
def photo():
    """Part of a photograph with strong colors, of odd sides, so that its last blocks are incomplete."""
    return np.ascontiguousarray(skimage.data.astronaut()[30:165, 150:301])


@pytest.mark.parametrize("quality", [1, 10, 40, 50, 75, 90, 100])
def test_the_tables_are_those_in_a_file(photo, quality):
    tables = saved(photo, quality, True).quantization
    np.testing.assert_array_equal(quantization_tables(quality).reshape(2, 64), [tables[0], tables[1]])


@pytest.mark.parametrize("subsampling", [True, False], ids=["4:2:0", "4:4:4"])
@pytest.mark.parametrize("quality", [1, 10, 40, 60, 80, 95, 100])
def test_pixels_are_those_of_a_saved_file(photo, quality, subsampling):
    error = np.abs(
        np.int32(compress(np.float32(photo), quality, subsampling)) - np.asarray(saved(photo, quality, subsampling))
    )
    # libjpeg computes the transform in integers. Where that decides a tie, a coefficient differs by a whole step of the
    # quantization, which is visible in one block: at most 40 times per image of 1,000 blocks. Everywhere else the
    # results differ by one level at most, where the inverse transform or the colors are rounded to the other side.
    assert error.mean() < 0.2
    assert (error > 1).mean() < 0.04


def test_an_image_of_one_pixel_and_flat_images_are_kept():
    for shape in ((1, 1, 3), (9, 17, 3)):
        flat = np.full(shape, 77, np.float32)
        np.testing.assert_array_equal(compress(flat, 100, True), flat)
