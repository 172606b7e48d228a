"""Pillow images to pictures and back."""

import numpy as np
import pytest
from PIL import Image

from a2f_jax.images.pil import from_pil, to_pil

RNG = np.random.default_rng(0)
RGBA = Image.fromarray(RNG.integers(0, 256, (5, 7, 4), np.uint8))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "YCbCr"])
def test_pixels_are_those_that_pillow_converts_to(mode):
    image = RGBA.convert("RGB").convert(mode) if mode in ("P", "RGBX", "YCbCr") else RGBA.convert(mode)
    picture = from_pil(image)
    np.testing.assert_array_equal(picture.pixels, image.convert("RGB"))
    assert picture.gray == (mode in ("1", "L", "LA"))
    if mode in ("LA", "RGBA"):
        np.testing.assert_array_equal(picture.alpha, np.asarray(RGBA)[..., 3])
    else:
        assert picture.alpha is None


def test_transparency_outside_the_mode_is_recognized():
    image = Image.fromarray(np.arange(35, dtype=np.uint8).reshape(5, 7)).convert("P")
    image.info["transparency"] = 4
    np.testing.assert_array_equal(from_pil(image).alpha, np.where(np.asarray(image) == 4, 0, 255))


def test_16_bit_grayscale_keeps_its_depth():
    samples = RNG.integers(0, 65536, (5, 7), np.uint16)
    picture = from_pil(Image.fromarray(samples))
    assert picture.gray
    np.testing.assert_array_equal(picture.pixels, np.repeat(samples[..., None], 3, -1))
    np.testing.assert_array_equal(to_pil(samples[..., None]), samples)


@pytest.mark.parametrize("mode", ["F", "CMYK", "HSV", "I"])
def test_other_modes_are_refused_with_the_remedy(mode):
    with pytest.raises(ValueError, match=f"of mode {mode}: convert it to L, LA, RGB or RGBA first"):
        from_pil(Image.new(mode, (8, 8)))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_samples_become_an_image_of_the_mode_that_holds_them(channels, mode):
    samples = RNG.integers(0, 256, (5, 7, channels), np.uint8)
    image = to_pil(samples)
    assert image.mode == mode
    np.testing.assert_array_equal(np.asarray(image).reshape(samples.shape), samples)
