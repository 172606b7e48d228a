"""What is read from files of every kind, checked against how they were made."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps

from a2f_jax.errors import UserError
from a2f_jax.images.reading import Picture, read_picture
from a2f_jax.images.writing import write_picture


def _noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def _saved(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pixels_survive_writing_and_reading(form, dtype, channels):
    if channels == 2 and dtype == np.uint16:
        pytest.skip("Pillow reads no 16-bit grey with alpha; it is refused")
    samples = _noise(23, 17, channels, dtype=dtype)
    original = Picture(samples[..., :3], icc_profile=_SRGB, xmp=b"<x:xmpmeta/>", dpi=(300, 300))
    file = io.BytesIO()
    write_picture(file, form, samples.shape, samples.dtype, iter([samples[:8], samples[8:16], samples[16:]]), original)
    picture = read_picture(file.getvalue())
    has_alpha = channels in (2, 4)
    colours = samples[..., : channels - has_alpha]
    assert picture.pixels.dtype == dtype
    np.testing.assert_array_equal(picture.pixels, np.broadcast_to(colours, (23, 17, 3)))
    if has_alpha:
        np.testing.assert_array_equal(picture.alpha, samples[..., -1])
    else:
        assert picture.alpha is None
    assert picture.grey == (channels < 3)
    assert (picture.icc_profile, picture.xmp) == (_SRGB, b"<x:xmpmeta/>")
    np.testing.assert_allclose(picture.dpi, 300, atol=0.1)


_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True}], ids=str)
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_16_bit_tiff_of_another_program(options, byteorder):
    pixels = _noise(21, 10, 3, dtype=np.uint16)
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, photometric="rgb", byteorder=byteorder, **options)
    np.testing.assert_array_equal(read_picture(file.getvalue()).pixels, pixels)


def test_16_bits_in_separate_planes_are_refused():
    file = io.BytesIO()
    tifffile.imwrite(file, _noise(3, 21, 10, dtype=np.uint16), photometric="rgb", planarconfig="separate")
    with pytest.raises(UserError, match="16 bits a channel in an unusual way"):
        read_picture(file.getvalue())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_set_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a maker"
    content = _saved(Image.fromarray(_noise(9, 12, 3)), "PNG", exif=exif)
    picture = read_picture(content)
    np.testing.assert_array_equal(picture.pixels, ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    kept = Image.Exif()
    kept.load(picture.exif)
    assert dict(kept) == {0x010F: "a maker"}


def test_palettes_with_transparency():
    palette = Image.fromarray(_noise(10, 11, 4)[..., :3]).quantize(8)
    picture = read_picture(_saved(palette, "PNG", transparency=3))
    np.testing.assert_array_equal(picture.pixels, palette.convert("RGB"))
    np.testing.assert_array_equal(picture.alpha == 0, np.asarray(palette) == 3)


def test_cmyk_is_converted_by_its_profile(monkeypatch):
    content = _saved(Image.new("CMYK", (9, 9), (255, 0, 0, 0)), "TIFF", icc_profile=b"a profile")
    red = Image.new("RGB", (9, 9), (200, 10, 20))
    calls = []
    monkeypatch.setattr(ImageCms, "ImageCmsProfile", lambda file: file.read())
    monkeypatch.setattr(ImageCms, "profileToProfile", lambda *a, **k: calls.append(a[1]) or red)
    picture = read_picture(content)
    assert calls == [b"a profile"]
    np.testing.assert_array_equal(picture.pixels, red)
    assert picture.icc_profile is None


def test_opaque_alpha_is_no_alpha():
    rgba = np.dstack([_noise(9, 9, 3), np.full((9, 9), 255, np.uint8)])
    assert read_picture(_saved(Image.fromarray(rgba), "PNG")).alpha is None


def _seeds():
    photo = Image.fromarray(_noise(24, 20, 3))
    deep = io.BytesIO()
    samples = _noise(24, 20, 3, dtype=np.uint16)
    write_picture(deep, "PNG", samples.shape, samples.dtype, iter([samples]), Picture(samples))
    return {"deep": deep.getvalue()} | {
        f: _saved(photo, f) for f in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "AVIF", "GIF")
    }


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "AVIF", "GIF", "deep"])
@pytest.mark.filterwarnings("ignore")  # Pillow warns of odd metadata
def test_broken_files_are_refused_in_one_line_or_read(kind):
    """Truncations, flipped bits, overwritten headers: 120 of each format."""
    good = _seeds()[kind]
    rng = np.random.default_rng(1)
    outcomes = {"read": 0, "refused": 0}
    for i in range(120):
        content = bytearray(good)
        match i % 4:
            case 0:
                content = content[: rng.integers(0, len(good))]
            case 1:
                for at in rng.integers(0, len(good), 8):
                    content[at] ^= 1 << rng.integers(0, 8)
            case 2:
                content[rng.integers(0, min(64, len(good)))] = rng.choice([0, 127, 128, 255])
            case 3:  # sizes and counts at their limits
                at = rng.integers(8, min(64, len(good)))
                content[at : at + 4] = rng.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"])
        try:
            picture = read_picture(bytes(content), limit=10_000_000)
        except UserError as error:
            assert "\n" not in str(error)
            assert "the standard input" in str(error)
            outcomes["refused"] += 1
        else:
            assert picture.pixels.ndim == 3
            outcomes["read"] += 1
    assert outcomes["refused"] > 20


def test_xmp_of_an_upright_image_says_so_too():
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    buffer = io.BytesIO()
    Image.new("RGB", (12, 9)).save(buffer, "JPEG", exif=exif, xmp=xmp)
    picture = read_picture(buffer.getvalue())
    assert picture.pixels.shape == (12, 9, 3)
    assert picture.xmp == xmp.replace(b'"6"', b'"1"')


def test_16_bits_with_white_as_zero():
    grey = np.arange(96, dtype=np.uint16).reshape(8, 12) * 600
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, 65535 - grey, photometric="miniswhite")
    np.testing.assert_array_equal(read_picture(buffer.getvalue()).pixels[..., 0], grey)
