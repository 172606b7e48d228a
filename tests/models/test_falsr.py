"""Pillow's interpolation, which FALSR takes its chroma from, to the bit."""

import numpy as np
import pytest
from PIL import Image

from a2f_jax.models.falsr import pillow_bicubic


@pytest.mark.parametrize("size", [(5, 7), (1, 3), (24, 17)])
@pytest.mark.parametrize("scale", [2, 3])
def test_pillow_bicubic_is_pillows(size, scale):
    height, width = size
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    want = Image.fromarray(image).resize((scale * width, scale * height), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(pillow_bicubic(image[None], scale)[0], np.asarray(want))
