"""Colors under transparent pixels, and the limits of the enlarged alpha."""

import numpy as np
import pytest

from a2f_jax.upscaling import transparency
from a2f_jax.upscaling.transparency import AlphaLimits, extend_colors


def _disc(size, radius, level=255, dtype=np.uint8):
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return np.where(np.hypot(y, x) < radius, level, 0).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_single_visible_color_spreads_everywhere_unchanged(dtype):
    color, alpha = np.array([200, 128, 3], dtype), _disc(37, 9, np.iinfo(dtype).max, dtype)
    pixels = np.where(alpha[..., None] > 0, color, dtype(77))
    np.testing.assert_array_equal(extend_colors(pixels, alpha), np.broadcast_to(color, (37, 37, 3)))


def test_visible_pixels_keep_their_colors_however_faint():
    rng = np.random.default_rng(0)
    pixels, alpha = rng.integers(0, 256, (2, 33, 30, 3), np.uint8)
    alpha = np.where(alpha[..., 0] < 100, alpha[..., 0] // 50, 0).astype(np.uint8)
    extended = extend_colors(pixels, alpha)
    np.testing.assert_array_equal(extended[alpha > 0], pixels[alpha > 0])


def test_hidden_pixels_take_the_nearest_visible_colors():
    pixels, alpha = np.zeros((16, 32, 3), np.uint8), np.zeros((16, 32), np.uint8)
    pixels[:, :4], pixels[:, 28:] = (250, 0, 0), (0, 0, 250)
    alpha[:, :4] = alpha[:, 28:] = 255
    extended = extend_colors(pixels, alpha)
    np.testing.assert_array_equal(extended[:, :16], np.broadcast_to(pixels[0, 0], (16, 16, 3)))
    np.testing.assert_array_equal(extended[:, 16:], np.broadcast_to(pixels[0, -1], (16, 16, 3)))


def test_faint_pixels_count_less_than_opaque_ones():
    pixels = np.array([[[100, 0, 0], [200, 0, 0], [0, 0, 0], [0, 0, 0]]], np.uint8)
    alpha = np.array([[250, 5, 0, 0]], np.uint8)
    np.testing.assert_array_equal(extend_colors(pixels, alpha)[0, 2:, 0], round((100 * 250 + 200 * 5) / 255))


@pytest.mark.parametrize("level", [0, 255])
def test_images_without_hidden_or_without_visible_pixels_stay_as_they_are(level):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 10, 3), np.uint8)
    np.testing.assert_array_equal(extend_colors(pixels, np.full((9, 10), level, np.uint8)), pixels)


@pytest.mark.parametrize("size", [31, 32, 33])
def test_the_result_does_not_depend_on_how_many_rows_are_processed_at_a_time(monkeypatch, size):
    pixels, alpha = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8), _disc(size, 8)
    want = extend_colors(pixels, alpha)
    monkeypatch.setattr(transparency, "_ROWS", 4)
    np.testing.assert_array_equal(extend_colors(pixels, alpha), want)


@pytest.mark.parametrize("size", [(26, 36), (33, 45), (14, 19)])
def test_alpha_is_limited_where_all_pixels_around_agree(size):
    alpha = np.random.default_rng(3).choice(np.array([0, 255], np.uint8), (13, 18), p=[0.1, 0.9])
    alpha[2:9, 3:12] = 0
    limited = AlphaLimits(alpha).apply(np.full(size, 100, np.float32), 0, *size)

    def required(y, x):
        """The rule written out: every original pixel that this one overlaps agrees with its 8 neighbors."""
        agreed = set()
        for i in range(13):
            for j in range(18):
                in_row = i * size[0] < (y + 1) * 13 and (i + 1) * size[0] > y * 13
                if in_row and j * size[1] < (x + 1) * 18 and (j + 1) * size[1] > x * 18:
                    around = {*alpha[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].ravel().tolist()}
                    agreed.add(around.pop() if len(around) == 1 else 100)
        return agreed.pop() if len(agreed) == 1 else 100

    want = [[required(y, x) for x in range(size[1])] for y in range(size[0])]
    assert {0, 100, 255} <= {*np.unique(want)}
    np.testing.assert_array_equal(limited, want)


def test_strips_are_limited_like_the_whole_and_clipped():
    alpha, sr = _disc(20, 7), np.random.default_rng(0).normal(128, 200, (50, 50)).astype(np.float32)
    limits = AlphaLimits(alpha)
    whole = limits.apply(sr, 0, 50, 50)
    assert whole.min() == 0
    assert whole.max() == 255
    strips = [limits.apply(sr[top : top + 7], top, 50, 50) for top in range(0, 50, 7)]
    np.testing.assert_array_equal(np.concatenate(strips), whole)
