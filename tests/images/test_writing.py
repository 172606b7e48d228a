"""Written files against what other decoders find in them."""

import io
import itertools

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from a2f_jax.catalogue import FORMATS
from a2f_jax.errors import UserError
from a2f_jax.images.reading import Picture, read_picture
from a2f_jax.images.writing import check_format, format_of, write_picture

SHAPE = (33, 21)
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def noise(channels, dtype, smooth=False):
    rng = np.random.default_rng(channels)
    high = np.iinfo(dtype).max
    if smooth:
        return np.full((*SHAPE, channels), high // 3, dtype)
    return rng.integers(0, high, (*SHAPE, channels), dtype, endpoint=True)


def written(form, pixels, picture=None, quality=None):
    """The content of a file that was written in strips of 8 rows."""
    file = io.BytesIO()
    strips = [pixels[row : row + 8] for row in range(0, len(pixels), 8)]
    write_picture(file, form, pixels.shape, pixels.dtype, strips, picture or Picture(pixels), quality)
    return file.getvalue()


# WebP has no greyscale.
@pytest.mark.parametrize(("form", "channels"), [*itertools.product(("PNG", "TIFF"), MODES), ("WEBP", 3), ("WEBP", 4)])
def test_lossless_formats_keep_every_pixel(form, channels):
    pixels = noise(channels, np.uint8)
    with Image.open(io.BytesIO(written(form, pixels))) as image:
        assert image.mode == MODES[channels]
        np.testing.assert_array_equal(np.asarray(image).reshape(pixels.shape), pixels)


@pytest.mark.parametrize("channels", MODES)
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_kept(form, channels):
    pixels = noise(channels, np.uint16)
    content = written(form, pixels)
    if form == "TIFF":
        have = tifffile.imread(io.BytesIO(content))
    elif channels == 1:
        have = np.asarray(Image.open(io.BytesIO(content)))
    else:  # Pillow keeps the upper 8 bits of each sample
        have, pixels = np.asarray(Image.open(io.BytesIO(content)).convert(MODES[channels])), pixels >> 8
    np.testing.assert_array_equal(have.reshape(pixels.shape), pixels)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_come_back(form):
    pixels = noise(4, np.uint16)
    picture = read_picture(written(form, pixels))
    np.testing.assert_array_equal(picture.pixels, pixels[..., :3])
    np.testing.assert_array_equal(picture.alpha, pixels[..., 3])


@pytest.mark.parametrize("form", ["JPEG", "AVIF"])
def test_lossy_formats_stay_near_and_quality_costs_bytes(form):
    flat = noise(3, np.uint8, smooth=True)
    with Image.open(io.BytesIO(written(form, flat))) as image:
        assert abs(np.asarray(image).astype(int) - flat).max() <= 2
    pixels = noise(3, np.uint8)
    assert len(written(form, pixels, quality=20)) < len(written(form, pixels)) / 2


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_profile_and_metadata_are_carried_over(form):
    exif = Image.Exif()
    exif[0x010F], exif[0x013B] = "a maker", "an artist"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = noise(3, np.uint8, smooth=True)
    picture = Picture(pixels, icc_profile=profile, exif=exif.tobytes(), xmp=b"<x:xmpmeta/>", dpi=(300, 300))
    with Image.open(io.BytesIO(written(form, pixels, picture))) as image:
        image.load()
        assert image.info["icc_profile"] == profile
        found = image.getexif()
        assert (found[0x010F], found[0x013B]) == ("a maker", "an artist")
        assert b"xmpmeta" in image.info["xmp"]
        if form in ("PNG", "JPEG", "TIFF"):  # WebP and AVIF have no resolution of their own
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_names_say_the_format(tmp_path):
    for name, form in FORMATS.items():
        for ending in form.suffixes:
            assert format_of(tmp_path / f"image{ending.upper()}") == name
    with pytest.raises(UserError, match=r"must end in one of \.png"):
        format_of(tmp_path / "image.gif")


def test_formats_have_limits():
    opaque = Picture(noise(3, np.uint8))
    check_format("WEBP", "a.webp", opaque, 16383, 16383)
    with pytest.raises(UserError, match=r"16384×1 pixels, WEBP holds 16383"):
        check_format("WEBP", "a.webp", opaque, 1, 16384)
    with pytest.raises(UserError, match="cannot be transparent"):
        check_format("JPEG", "a.jpg", Picture(noise(3, np.uint8), alpha=noise(1, np.uint8)[..., 0]), 33, 21)
