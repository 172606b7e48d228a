"""Checks TIFF files that only tifffile decodes against the arrays they were made from."""

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import ImageCms

from a2f_jax.errors import UserError
from a2f_jax.images.metadata import read_exif
from a2f_jax.images.reading import read_picture, read_size


def _noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def _tiff(samples, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, samples, **options)
    return file.getvalue()


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_with_separate_planes_is_read(dtype, compression):
    planes = _noise(3, 21, 10, dtype=dtype)
    picture = read_picture(_tiff(planes, photometric="rgb", planarconfig="separate", compression=compression))
    np.testing.assert_array_equal(picture.pixels, np.moveaxis(planes, 0, -1))
    assert picture.dpi is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(9, 12), (9, 12, 3)])
def test_floating_point_tiff_from_0_to_1_is_read_as_16_bits(shape, dtype):
    samples = np.random.default_rng(0).uniform(0, 1, shape).astype(dtype)
    samples[0, 0], samples[0, 1] = 0, 1
    picture = read_picture(_tiff(samples, photometric="rgb" if len(shape) == 3 else "minisblack"))
    expected = np.rint(samples.reshape(9, 12, -1).astype(np.float64) * 65535)
    np.testing.assert_array_equal(picture.pixels, np.broadcast_to(expected, (9, 12, 3)))
    assert picture.pixels.dtype == np.uint16


@pytest.mark.parametrize("value", [-0.01, 1.01, np.nan, np.inf])
def test_floating_point_samples_outside_0_to_1_are_refused(value):
    samples = np.full((9, 12, 3), 0.5, np.float32)
    samples[3, 4, 1] = value
    with pytest.raises(
        UserError, match=r"floating-point samples from .* but only 0\.\.1 can be read: scale or tone-map"
    ):
        read_picture(_tiff(samples, photometric="rgb"))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint32, np.int32])
@pytest.mark.parametrize("photometric", ["minisblack", "rgb"])
def test_tiff_samples_without_a_mapping_to_16_bits_are_refused_by_name(photometric, dtype):
    samples = np.ones((9, 12, 3) if photometric == "rgb" else (9, 12), dtype)
    with pytest.raises(UserError, match=rf"-bit {np.dtype(dtype)} samples.*: convert it to 8-bit or 16-bit RGB"):
        read_picture(_tiff(samples, photometric=photometric))


def test_associated_alpha_is_divided_out_of_16_bit_colors():
    alpha = np.array([[0, 1000, 30000, 65535]], np.uint16).repeat(9, 0)
    straight = np.array([0, 20000, 20000, 20000], np.uint16)
    associated = np.rint(straight * (alpha / 65535)).astype(np.uint16)
    samples = np.stack([associated, associated, associated, alpha], -1)
    picture = read_picture(_tiff(samples, photometric="rgb", extrasamples=["assocalpha"]))
    np.testing.assert_array_equal(picture.alpha, alpha)
    np.testing.assert_allclose(picture.pixels[..., 0], np.broadcast_to(straight, (9, 4)), atol=40)


def _big_tiff(pixels, byte_order, offset_type):
    """Returns a BigTIFF whose tags all have a 64-bit type, as some programs write them."""
    height, width, _ = pixels.shape
    values = {256: width, 257: height, 258: 8, 259: 1, 262: 2, 277: 3, 278: height, 279: pixels.size}
    values[273] = 16 + 8 + 20 * (len(values) + 1) + 8
    entries = b"".join(struct.pack(f"{byte_order}HHQQ", tag, offset_type, 1, values[tag]) for tag in sorted(values))
    mark = {"<": b"II", ">": b"MM"}[byte_order]
    return struct.pack(f"{byte_order}2sHHHQQ", mark, 43, 8, 0, 16, len(values)) + entries + bytes(8) + pixels.tobytes()


@pytest.mark.filterwarnings("ignore")  # Pillow warns before tifffile takes over
@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("offset_type", [16, 18], ids=["LONG8", "IFD8"])
def test_big_tiff_with_64_bit_tags_is_read(byte_order, offset_type):
    pixels = _noise(9, 12, 3)
    np.testing.assert_array_equal(read_picture(_big_tiff(pixels, byte_order, offset_type)).pixels, pixels)


def test_metadata_of_a_tiff_that_pillow_cannot_decode_is_kept():
    samples = _noise(9, 12, 2, dtype=np.uint16)
    tags = [(315, "s", 0, "an artist", True), (700, 1, 12, b"<x:xmpmeta/>", True), (274, "H", 1, 6, True)]
    options = {"photometric": "minisblack", "extrasamples": ["unassalpha"], "iccprofile": b"a profile"}
    picture = read_picture(_tiff(samples, **options, resolution=(300, 200), resolutionunit="INCH", extratags=tags))
    assert picture.pixels.shape == (12, 9, 3)
    assert (picture.icc_profile, picture.xmp) == (b"a profile", b"<x:xmpmeta/>")
    assert picture.dpi == (200, 300)  # rotated with the pixels
    assert read_exif(picture.exif)[315] == "an artist"


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])  # read by Pillow, and by tifffile
@pytest.mark.parametrize(("resolution", "aspect"), [((16, 11), (16, 11)), ((1.5, 1), (3, 2)), ((1, 1), None)])
def test_pixels_that_are_not_square_are_known_without_a_unit(dtype, resolution, aspect):
    content = _tiff(np.zeros((9, 12), dtype), resolution=resolution, resolutionunit="NONE")
    picture = read_picture(content)
    assert (picture.aspect, picture.dpi) == (aspect, None)


def test_the_pixel_limit_holds_for_a_tiff_that_pillow_cannot_decode():
    with pytest.raises(UserError, match="declares 12×9 pixels, more than the pixel limit of 100"):
        read_picture(_tiff(np.zeros((9, 12, 3), np.float32), photometric="rgb"), limit=100)


def test_a_compression_without_a_decoder_names_the_package_that_has_one(monkeypatch):
    def asarray(self, **options):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", asarray)
    with pytest.raises(UserError, match=r"LZW.*: install 'a2f_jax\[formats\]', or convert the file to PNG"):
        read_picture(_tiff(np.zeros((9, 12, 3), np.float32), photometric="rgb"))


@pytest.mark.filterwarnings("ignore")  # Pillow warns about malformed tags
def test_damage_in_a_tiff_that_pillow_cannot_decode_is_reported_in_one_line(caplog):
    whole = _tiff(_noise(9, 12, 2, dtype=np.uint16), photometric="minisblack", extrasamples=["unassalpha"])
    rng = np.random.default_rng(0)
    for _ in range(150):
        content = bytearray(whole)
        for at in rng.integers(4, len(whole) - 432, 3):
            content[at] = rng.integers(0, 256)
        try:
            picture = read_picture(bytes(content), limit=10_000_000)
        except UserError as error:
            assert "\n" not in str(error)
        else:
            assert picture.pixels.ndim == 3
    assert not caplog.records


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])  # read by Pillow, and by tifffile
def test_thumbnails_and_overviews_are_not_frames(dtype):
    samples = (_noise(24, 32, 3) / 255).astype(dtype) if dtype == np.float32 else _noise(24, 32, 3)
    for second, frames in ((1, 1), (0, 2)):
        file = io.BytesIO()
        with tifffile.TiffWriter(file) as tiff:
            tiff.write(samples, photometric="rgb", metadata=None)
            tiff.write(samples[::4, ::4], photometric="rgb", metadata=None, subfiletype=second)
        content = file.getvalue()
        if frames == 1:
            assert read_picture(content).pixels.shape == (24, 32, 3)
            assert read_size(content) == ("TIFF", 24, 32)
        else:
            for read in (read_picture, read_size):
                with pytest.raises(UserError, match="has 2 frames"):
                    read(content)


def test_the_color_profile_of_a_thumbnail_is_not_that_of_the_image():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tiff:
        tiff.write(_noise(24, 32, 3), photometric="rgb", metadata=None)
        tiff.write(_noise(6, 8, 3), photometric="rgb", metadata=None, subfiletype=1, iccprofile=profile)
    assert read_picture(file.getvalue()).icc_profile is None
