"""Checks what is kept of a JPEG file's segments."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms, IptcImagePlugin

from a2f_jax.errors import UserError
from a2f_jax.images.reading import read_picture
from a2f_jax.images.writing import write_picture


def jpeg(mode="RGB", **options):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, len(Image.new(mode, (1, 1)).getbands())), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(), mode).save(file, "JPEG", **options)
    return file.getvalue()


def segment(marker, data):
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def with_segments(*segments, content=None):
    content = content or jpeg()
    return content[:2] + b"".join(segments) + content[2:]


def rewritten(picture, form="JPEG"):
    file = io.BytesIO()
    write_picture(file, form, picture.pixels.shape, picture.pixels.dtype, [picture.pixels], picture)
    return file.getvalue()


def test_comments_are_copied():
    comments = (b"first", "zweiter: größer".encode())
    picture = read_picture(with_segments(*(segment(0xFE, comment) for comment in comments)))
    assert picture.comments == comments
    assert read_picture(rewritten(picture)).comments == comments


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pixels_are_those_of_the_decoder(mode):
    content = jpeg(mode)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    picture = read_picture(content)
    np.testing.assert_array_equal(picture.pixels, expected)
    assert picture.gray == (mode == "L")


def test_rgb_samples_without_conversion_to_ycbcr_are_decoded():
    # Written without a JFIF header: the Adobe segment states the color space.
    content = jpeg(keep_rgb=True)
    np.testing.assert_array_equal(read_picture(content).pixels, np.asarray(Image.open(io.BytesIO(content))))


def test_a_color_profile_in_several_segments_is_joined():
    profile = np.random.default_rng(0).bytes(150_000)
    assert read_picture(jpeg(icc_profile=profile)).icc_profile == profile


@pytest.mark.parametrize("numbers", [[(1, 2)], [(1, 2), (1, 2)], [(2, 2), (3, 2)], [(0, 1)], [(1, 0)]])
def test_an_incomplete_color_profile_is_dropped(numbers):
    parts = [segment(0xE2, b"ICC_PROFILE\0" + bytes(pair) + b"part") for pair in numbers]
    assert read_picture(with_segments(*parts)).icc_profile is None


@pytest.mark.parametrize(
    ("unit", "x", "y", "dpi", "aspect"),
    [
        (1, 300, 200, (300, 200), None),
        (2, 100, 50, (254, 127), None),
        (0, 1, 1, None, None),
        (0, 4, 3, None, (4, 3)),
        (1, 0, 0, None, None),
        (9, 1, 1, None, None),
    ],
)
def test_the_resolution_comes_from_the_header(unit, x, y, dpi, aspect):
    content = bytearray(jpeg())
    content[13:18] = struct.pack(">BHH", unit, x, y)
    picture = read_picture(bytes(content))
    assert picture.dpi == dpi
    assert picture.aspect == aspect


def test_the_resolution_comes_from_exif_if_the_header_has_none():
    exif = Image.Exif()
    exif[0x011A], exif[0x011B], exif[0x0128] = 240.0, 240.0, 2
    assert read_picture(jpeg(exif=exif)).dpi == (240, 240)


@pytest.mark.filterwarnings("ignore")  # Pillow warns about malformed metadata
def test_malformed_segments_do_not_make_an_image_unreadable():
    """Inserts 400 segments that start as known metadata and continue with noise."""
    good = jpeg()
    expected = read_picture(good).pixels
    starts = [b"JFIF\0", b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"]
    starts += [b"MPF\0MM\0*", b"Photoshop 3.0\x008BIM", b"FPXR\0"]
    rng = np.random.default_rng(0)
    for i in range(400):
        noise = rng.integers(0, 4 if i % 2 else 256, rng.integers(0, 40), dtype=np.uint8).tobytes()
        marker = rng.integers(0xE0, 0xF0)
        picture = read_picture(with_segments(segment(marker, starts[i % len(starts)] + noise), content=good))
        np.testing.assert_array_equal(picture.pixels, expected)


def test_a_phone_photograph_with_a_preview_is_read_without_the_preview():
    first, second = Image.new("RGB", (32, 24), "red"), Image.new("RGB", (16, 12), "blue")
    file = io.BytesIO()
    first.save(file, "MPO", save_all=True, append_images=[second])
    picture = read_picture(file.getvalue())
    assert (picture.pixels.shape, picture.format) == ((24, 32, 3), "JPEG")


def test_samples_of_12_bits_are_named():
    content = bytearray(jpeg())
    content[content.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(UserError, match="is a 12-bit JPEG, which is not supported: convert it to PNG"):
        read_picture(bytes(content))


@pytest.mark.parametrize("size", [2, 3, 4, 20, 100, 300])
def test_a_header_that_ends_early_is_refused_with_a_reason(size):
    with pytest.raises(UserError, match=r"is damaged: the JPEG file ends before its pixels|its format is none of"):
        read_picture(jpeg()[:size])


def test_cmyk_with_a_profile_for_other_colors_is_refused_in_one_line():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with pytest.raises(UserError, match="is a CMYK image whose color profile is for RGB colors: convert it to RGB"):
        read_picture(jpeg("CMYK", icc_profile=srgb))
    with pytest.raises(UserError, match="is a CMYK image whose color profile is damaged: convert it to RGB"):
        read_picture(jpeg("CMYK", icc_profile=srgb[:16] + b"CMYK" + srgb[20:200]))


def resource(number, data, name=b""):
    named = bytes([len(name)]) + name + bytes((len(name) + 1) % 2)
    return b"8BIM" + number.to_bytes(2, "big") + named + len(data).to_bytes(4, "big") + data + bytes(len(data) % 2)


def with_photoshop(content, resources):
    data = b"Photoshop 3.0\0" + resources
    return content[:2] + b"\xff\xed" + (len(data) + 2).to_bytes(2, "big") + data + content[2:]


CAPTION = b"\x1c\x02\x78\x00\x09a caption" + b"\x1c\x02\x74\x00\x06Agency"


@pytest.mark.parametrize(
    "before", [b"", resource(0x040C, b"a thumbnail"), resource(0x03ED, b"four", name=b"eleven char")]
)
def test_an_iptc_record_is_kept_in_jpeg(before):
    content = io.BytesIO()
    Image.new("RGB", (16, 16)).save(content, "JPEG")
    picture = read_picture(with_photoshop(content.getvalue(), before + resource(0x0404, CAPTION) + resource(1, b"")))
    file = io.BytesIO()
    write_picture(file, "JPEG", picture.pixels.shape, picture.pixels.dtype, [picture.pixels], picture)
    with Image.open(file) as image:
        assert IptcImagePlugin.getiptcinfo(image) == {(2, 120): b"a caption", (2, 116): b"Agency"}
    assert b"thumbnail" not in file.getvalue()


@pytest.mark.parametrize(
    "resources", [b"", b"8BIM", b"8BIM\4\4", resource(0x0404, CAPTION)[:-20], resource(0x0404, b"")]
)
def test_a_damaged_iptc_record_is_dropped(resources):
    content = io.BytesIO()
    Image.new("RGB", (16, 16)).save(content, "JPEG")
    assert read_picture(with_photoshop(content.getvalue(), resources)).iptc is None
