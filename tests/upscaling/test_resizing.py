"""Resizing strip by strip."""

import numpy as np
import pytest
from PIL import Image

from a2f_jax.upscaling.resizing import resize_strips


def _image(height, width):
    return np.random.default_rng(height * width).uniform(0, 255, (height, width, 3)).astype(np.float32)


@pytest.mark.parametrize("rows", [1, 5, 16, 64])
@pytest.mark.parametrize(
    ("size", "target"),
    [((64, 50), (40, 31)), ((64, 50), (90, 70)), ((200, 33), (7, 5)), ((33, 40), (33, 20)), ((100, 10), (101, 11))],
)
def test_strips_give_the_same_result_as_the_whole_image(size, target, rows):
    image = _image(*size)
    whole = [Image.fromarray(image[..., c]).resize(target[::-1], Image.Resampling.LANCZOS) for c in range(3)]
    strips = (image[top : top + rows] for top in range(0, len(image), rows))
    result = np.concatenate(list(resize_strips(strips, len(image), target)))
    # Pillow rounds positions to float32.
    np.testing.assert_allclose(result, np.stack([np.asarray(c) for c in whole], -1), rtol=0, atol=1e-3)


@pytest.mark.parametrize("target", [(125, 5), (1300, 12)])
def test_only_a_few_rows_are_held(target):
    taken = 0

    def strips():
        nonlocal taken
        for top in range(0, 1000, 10):
            taken = top + 10
            yield image[top : top + 10]

    image, done = _image(1000, 10), 0
    for strip in resize_strips(strips(), 1000, target):
        done += len(strip)
        # The Lanczos kernel reaches 3 pixels of the coarser image beyond; one strip may wait for the next.
        assert taken - done * 1000 / target[0] <= 4 * max(1000 / target[0], 1) + 10
    assert done == target[0]
