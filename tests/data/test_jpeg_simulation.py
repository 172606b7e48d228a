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
@pytest.mark.parametrize("quality", [1, 10, 30, 40, 50, 60, 80, 95, 100])
def test_pixels_equal_those_of_a_saved_file(photo, quality, subsampling):
    np.testing.assert_array_equal(compress(np.float32(photo), quality, subsampling), saved(photo, quality, subsampling))


@pytest.mark.parametrize("shape", [(1, 1), (9, 3), (5, 4), (2, 5), (7, 6), (16, 16), (17, 34)], ids=str)
def test_images_of_any_size_are_extended_as_in_a_file(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for subsampling in (True, False):
        np.testing.assert_array_equal(compress(np.float32(image), 70, subsampling), saved(image, 70, subsampling))
