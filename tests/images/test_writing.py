"""Checks written files by decoding them with other libraries."""

import io
import itertools
import os

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from a2f_jax.catalog import FORMATS
from a2f_jax.errors import UserError
from a2f_jax.images import read_rgb, write_rgb
from a2f_jax.images.decoding import Picture
from a2f_jax.images.reading import read_picture
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
    """Returns the content of a file written in strips of 8 rows."""
    file = io.BytesIO()
    strips = [pixels[row : row + 8] for row in range(0, len(pixels), 8)]
    write_picture(file, form, pixels.shape, pixels.dtype, strips, picture or Picture(pixels), quality)
    return file.getvalue()


# WebP has no grayscale.
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
    else:  # Pillow keeps only the upper 8 bits of each sample
        have, pixels = np.asarray(Image.open(io.BytesIO(content)).convert(MODES[channels])), pixels >> 8
    np.testing.assert_array_equal(have.reshape(pixels.shape), pixels)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_survive_writing_and_reading(form):
    pixels = noise(4, np.uint16)
    picture = read_picture(written(form, pixels))
    np.testing.assert_array_equal(picture.pixels, pixels[..., :3])
    np.testing.assert_array_equal(picture.alpha, pixels[..., 3])


@pytest.mark.parametrize("rows", [1, 5, 33])
@pytest.mark.parametrize("heights", [[3, 10, 12, 8], [12, 9, 12], [1] * 33, [30, 3], [33]])
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_strips_may_have_any_heights(form, heights, rows, monkeypatch):
    pixels = noise(3, np.uint8)
    monkeypatch.setattr("a2f_jax.images.writing._TIFF_STRIP", rows * pixels[0].nbytes)
    file = io.BytesIO()
    strips = np.split(pixels, np.cumsum(heights)[:-1])
    write_picture(file, form, pixels.shape, pixels.dtype, strips, Picture(pixels))
    with Image.open(file) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)
    if form == "TIFF":
        file.seek(0)
        with tifffile.TiffFile(file) as tiff:
            np.testing.assert_array_equal(tiff.asarray(), pixels)
            assert tiff.pages.first.rowsperstrip == rows


@pytest.mark.parametrize("form", ["JPEG", "AVIF"])
def test_lossy_formats_are_accurate_and_a_lower_quality_saves_space(form):
    flat = noise(3, np.uint8, smooth=True)
    with Image.open(io.BytesIO(written(form, flat))) as image:
        assert abs(np.asarray(image).astype(int) - flat).max() <= 2
    pixels = noise(3, np.uint8)
    assert len(written(form, pixels, quality=20)) < len(written(form, pixels)) / 2


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_profile_and_metadata_are_copied(form):
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
        if form in ("PNG", "JPEG", "TIFF"):  # WebP and AVIF have no field for the resolution
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_the_suffix_selects_the_format(tmp_path):
    for name, form in FORMATS.items():
        for suffix in form.suffixes:
            assert format_of(tmp_path / f"image{suffix.upper()}") == name
    with pytest.raises(UserError, match=r"must end in one of \.png"):
        format_of(tmp_path / "image.gif")


def test_results_that_a_format_cannot_hold_are_refused():
    opaque = Picture(noise(3, np.uint8))
    check_format("WEBP", "a.webp", opaque, 16383, 16383)
    with pytest.raises(UserError, match=r"16384×1 pixels, but WEBP allows at most 16383 per side"):
        check_format("WEBP", "a.webp", opaque, 1, 16384)
    check_format("BMP", "a.bmp", opaque, 16_384, 87_000)
    with pytest.raises(UserError, match=r"a\.bmp would have 88000×16384 pixels, too many for BMP: use PNG"):
        check_format("BMP", "a.bmp", opaque, 16_384, 88_000)  # 4.3 GB
    with pytest.raises(UserError, match="JPEG does not support transparency"):
        check_format("JPEG", "a.jpg", Picture(noise(3, np.uint8), alpha=noise(1, np.uint8)[..., 0]), 33, 21)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".webp", ".tif", ".tiff", ".bmp"])
def test_rgb_survives_writing_and_reading(tmp_path, pixels, suffix):
    write_rgb(tmp_path / f"new/image{suffix}", pixels)
    np.testing.assert_array_equal(read_rgb(tmp_path / f"new/image{suffix}"), pixels)
    assert [f.name for f in (tmp_path / "new").iterdir()] == [f"image{suffix}"]


def test_jpeg_is_close(tmp_path):
    smooth = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None] * 3, (64, 48, 3))
    write_rgb(tmp_path / "image.jpg", smooth)
    np.testing.assert_allclose(read_rgb(tmp_path / "image.jpg").astype(int), smooth, atol=4)


def test_an_existing_file_is_replaced(tmp_path, pixels):
    write_rgb(tmp_path / "image.png", pixels)
    write_rgb(tmp_path / "image.png", 255 - pixels)
    np.testing.assert_array_equal(read_rgb(str(tmp_path / "image.png")), 255 - pixels)


def test_an_unknown_suffix_is_refused(tmp_path, pixels):
    with pytest.raises(UserError, match=r"image\.xyz: the name must end in one of \.png"):
        write_rgb(tmp_path / "image.xyz", pixels)


def test_a_refused_image_leaves_the_existing_file_untouched(tmp_path, pixels):
    write_rgb(tmp_path / "image.webp", pixels)
    before = (tmp_path / "image.webp").read_bytes()
    with pytest.raises(UserError, match="WEBP allows at most 16383"):
        write_rgb(tmp_path / "image.webp", np.zeros((1, 16384, 3), np.uint8))
    assert (tmp_path / "image.webp").read_bytes() == before
    assert os.listdir(tmp_path) == ["image.webp"]


def test_a_file_where_the_folder_should_be_is_an_error(tmp_path, pixels):
    (tmp_path / "folder").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*image\.png"):
        write_rgb(tmp_path / "folder/image.png", pixels)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_that_are_not_square_keep_their_shape(form, channels):
    pixels = noise(channels, np.uint8)
    content = written(form, pixels, Picture(pixels, aspect=(16, 11), exif=Image.Exif().tobytes()))
    again = read_picture(content)
    assert (again.aspect, again.dpi) == ((16, 11), None)
    assert again.pixels.shape[:2] == SHAPE


@pytest.mark.parametrize(("dpi", "expected"), [(65_535, (65_535, 65_535)), (76_200, None), (762_000, None)])
def test_a_resolution_that_a_jpeg_cannot_state_is_left_out(dpi, expected):
    pixels = noise(3, np.uint8)
    assert read_picture(written("JPEG", pixels, Picture(pixels, dpi=(dpi, dpi)))).dpi == expected
