"""Grayscale, transparency, 16 bits and factors other than the scale of the model."""

import numpy as np
import pytest
from PIL import Image

from a2f_jax.errors import UserError
from a2f_jax.images.reading import Picture
from a2f_jax.upscaling.enlarge import enlarge, enlargement_of, steps


@pytest.fixture(scope="module")
def upscaler(model):
    return model.upscaler(tile=16)


def _noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def _enlarged(upscaler, picture, target=None, deep=True):
    to = enlargement_of(picture, upscaler.scale, target, deep)
    done = []
    result = np.concatenate(list(enlarge(upscaler, picture, to, done.append)))
    assert result.shape == (to.height, to.width, to.channels)
    assert result.dtype == to.dtype
    assert sum(done) == steps(upscaler, picture, to)
    return result


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colors_are_those_of_the_model(upscaler, dtype):
    pixels = _noise(19, 18, 3, dtype=dtype)
    np.testing.assert_array_equal(_enlarged(upscaler, Picture(pixels)), upscaler.upscale(pixels))


def test_gray_stays_gray(upscaler):
    pixels = np.repeat(_noise(12, 13, 1), 3, -1)
    want = upscaler.upscale(pixels.astype(np.float32)).mean(-1, keepdims=True)
    np.testing.assert_allclose(_enlarged(upscaler, Picture(pixels, grey=True)), np.clip(want, 0, 255), atol=0.51)


def test_16_bits_become_8_if_the_format_holds_no_more(upscaler):
    pixels = _noise(12, 13, 3, dtype=np.uint16)
    deep, flat = _enlarged(upscaler, Picture(pixels)), _enlarged(upscaler, Picture(pixels), deep=False)
    np.testing.assert_allclose(flat, deep / 257, atol=0.51)


def test_hidden_colors_do_not_bleed(upscaler):
    """The result does not depend on the colors of fully transparent pixels."""
    pixels, alpha = _noise(16, 16, 3), np.full((16, 16), 255, np.uint8)
    alpha[:, 8:] = 0
    other = pixels.copy()
    other[:, 8:] = 255 - other[:, 8:]
    first, second = (_enlarged(upscaler, Picture(p, alpha)) for p in (pixels, other))
    np.testing.assert_array_equal(first, second)


def test_alpha_is_upscaled_and_divides_the_colors(upscaler):
    pixels, alpha = _noise(16, 18, 3), np.full((16, 18), 128, np.uint8)
    result = _enlarged(upscaler, Picture(pixels, alpha))
    cover = np.clip(upscaler.upscale(np.full((16, 18, 3), 128, np.float32)).mean(-1), 0, 255)
    np.testing.assert_allclose(result[..., 3], cover, atol=0.51)
    multiplied = upscaler.upscale(pixels.astype(np.float32) * np.float32(128 / 255))
    want = np.clip(multiplied * 255 / np.maximum(cover, 0.5)[..., None], 0, 255)
    np.testing.assert_allclose(result[..., :3], want, atol=0.51)


def test_other_factors_are_upscaled_further_and_then_shrunk(upscaler):
    pixels = _noise(16, 20, 3)
    large = upscaler.upscale(pixels.astype(np.float32))
    channels = [Image.fromarray(large[..., c]).resize((30, 24), Image.Resampling.LANCZOS) for c in range(3)]
    want = np.clip(np.stack([np.asarray(c) for c in channels], -1), 0, 255)
    np.testing.assert_allclose(_enlarged(upscaler, Picture(pixels), 1.5), want, atol=0.51)


@pytest.mark.parametrize(
    ("target", "size", "passes"),
    [(None, (32, 40), 1), (2.0, (32, 40), 1), (2.5, (40, 50), 2), (4.0, (64, 80), 2), ((100, 64), (64, 80), 2)],
)
def test_sizes_and_passes(upscaler, target, size, passes):
    to = enlargement_of(Picture(_noise(16, 20, 3)), 2, target, True)
    assert (to.height, to.width, to.passes) == (*size, passes)
    if passes == 2:
        assert _enlarged(upscaler, Picture(_noise(16, 20, 3)), target).shape == (*size, 3)


@pytest.mark.parametrize("target", [1.0, 0.5, (20, 16), (10, 400)])
def test_requests_that_do_not_enlarge_are_refused(target):
    with pytest.raises(UserError, match="already has the requested size"):
        enlargement_of(Picture(_noise(16, 20, 3)), 2, target, True)
