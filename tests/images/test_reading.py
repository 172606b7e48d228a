"""Checks what is read from image files against the arrays and metadata they were made from."""

import contextlib
import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

from a2f_jax.errors import UserError
from a2f_jax.images import write_rgb
from a2f_jax.images.decoding import Picture
from a2f_jax.images.reading import read_picture, read_rgb, read_size
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
    samples = _noise(23, 17, channels, dtype=dtype)
    original = Picture(samples[..., :3], icc_profile=_SRGB, xmp=b"<x:xmpmeta/>", dpi=(300, 300))
    file = io.BytesIO()
    write_picture(file, form, samples.shape, samples.dtype, iter([samples[:8], samples[8:16], samples[16:]]), original)
    picture = read_picture(file.getvalue())
    has_alpha = channels in (2, 4)
    colors = samples[..., : channels - has_alpha]
    assert picture.pixels.dtype == dtype
    np.testing.assert_array_equal(picture.pixels, np.broadcast_to(colors, (23, 17, 3)))
    if has_alpha:
        np.testing.assert_array_equal(picture.alpha, samples[..., -1])
    else:
        assert picture.alpha is None
    assert picture.gray == (channels < 3)
    assert (picture.icc_profile, picture.xmp) == (_SRGB, b"<x:xmpmeta/>")
    np.testing.assert_allclose(picture.dpi, 300, atol=0.1)


_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True}], ids=str)
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_16_bit_tiff_files_of_either_byte_order_are_read(options, byteorder):
    pixels = _noise(21, 10, 3, dtype=np.uint16)
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, photometric="rgb", byteorder=byteorder, **options)
    np.testing.assert_array_equal(read_picture(file.getvalue()).pixels, pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_removed_from_exif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a maker"
    content = _saved(Image.fromarray(_noise(9, 12, 3)), "PNG", exif=exif)
    picture = read_picture(content)
    np.testing.assert_array_equal(picture.pixels, ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    kept = Image.Exif()
    kept.load(picture.exif)
    assert dict(kept) == {0x010F: "a maker"}


def test_palette_transparency_becomes_alpha():
    palette = Image.fromarray(_noise(10, 11, 4)[..., :3]).quantize(8)
    picture = read_picture(_saved(palette, "PNG", transparency=3))
    np.testing.assert_array_equal(picture.pixels, palette.convert("RGB"))
    np.testing.assert_array_equal(picture.alpha == 0, np.asarray(palette) == 3)


def test_cmyk_is_converted_with_its_profile(monkeypatch):
    content = _saved(Image.new("CMYK", (9, 9), (255, 0, 0, 0)), "TIFF", icc_profile=b"a profile")
    red = Image.new("RGB", (9, 9), (200, 10, 20))
    calls = []
    monkeypatch.setattr(ImageCms, "ImageCmsProfile", lambda file: file.read())
    monkeypatch.setattr(ImageCms, "profileToProfile", lambda *a, **k: calls.append(a[1]) or red)
    picture = read_picture(content)
    assert calls == [b"a profile"]
    np.testing.assert_array_equal(picture.pixels, red)
    assert picture.icc_profile is None


def test_opaque_alpha_is_dropped():
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
@pytest.mark.filterwarnings("ignore")  # Pillow warns about malformed metadata
def test_damaged_files_are_read_or_refused_in_one_line(kind):
    """Truncates files, flips bits and overwrites headers, 120 times per format."""
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
            case 3:  # extreme sizes and counts
                at = rng.integers(8, min(64, len(good)))
                content[at : at + 4] = rng.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"])
        try:
            picture = read_picture(bytes(content), limit=10_000_000)
        except UserError as error:
            assert "\n" not in str(error)
            assert "standard input" in str(error)
            outcomes["refused"] += 1
        else:
            assert picture.pixels.ndim == 3
            outcomes["read"] += 1
    assert outcomes["refused"] > 20


def test_xmp_orientation_is_set_to_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    buffer = io.BytesIO()
    Image.new("RGB", (12, 9)).save(buffer, "JPEG", exif=exif, xmp=xmp)
    picture = read_picture(buffer.getvalue())
    assert picture.pixels.shape == (12, 9, 3)
    assert picture.xmp == xmp.replace(b'"6"', b'"1"')


@pytest.mark.parametrize("text", ["='6'", ' = "6"', '="%s"' % ("9" * 5000), '="66"'], ids=[*"abcd"])
def test_sizes_are_those_of_the_pixels_for_any_xmp(pixels, text):
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation{text}/></x:xmpmeta>'.encode()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", xmp=xmp)
    shape = (9, 13) if "99" in text or "66" in text else (13, 9)
    assert read_picture(buffer.getvalue()).pixels.shape[:2] == read_size(buffer.getvalue())[1:] == shape


def test_of_avif_only_its_own_orientation_counts(pixels):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "AVIF", xmp=xmp)
    assert read_picture(buffer.getvalue()).pixels.shape[:2] == read_size(buffer.getvalue())[1:] == (9, 13)


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 9])
def test_the_orientation_in_xmp_counts_if_exif_has_none(pixels, format_name, orientation):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>' % orientation
    options = {"JPEG": {"xmp": xmp, "quality": 95}, "WEBP": {"xmp": xmp, "lossless": True}, "PNG": {}, "TIFF": {}}
    options["PNG"]["pnginfo"] = PngInfo()
    options["PNG"]["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    options["TIFF"]["tiffinfo"] = {700: xmp}
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format_name, **options[format_name])
    picture = read_picture(buffer.getvalue())
    with Image.open(buffer) as image:
        want = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(picture.pixels, want)
    assert picture.pixels.shape[:2] == ((13, 9) if orientation == 6 else (9, 13))
    assert read_size(buffer.getvalue())[1:] == picture.pixels.shape[:2]
    exif = Image.Exif()
    exif[0x0112] = 1
    if format_name == "JPEG":
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", exif=exif, **options["JPEG"])
        assert read_picture(buffer.getvalue()).pixels.shape == (9, 13, 3)


def test_16_bit_samples_are_inverted_where_white_is_zero():
    gray = np.arange(96, dtype=np.uint16).reshape(8, 12) * 600
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, 65535 - gray, photometric="miniswhite")
    np.testing.assert_array_equal(read_picture(buffer.getvalue()).pixels[..., 0], gray)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)


def _png(samples: np.ndarray, color: int, bits: int) -> bytes:
    """Returns a PNG file of a kind that Pillow reads but does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], bits, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_reads_inside_an_archive(tmp_path, pixels):
    write_rgb(tmp_path / "image.png", pixels)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.write(tmp_path / "image.png", "folder/image.png")
    np.testing.assert_array_equal(read_rgb(zipfile.Path(tmp_path / "images.zip", "folder/image.png")), pixels)


# EXIF defines an orientation by the sides of the upright image at which the first stored row and column belong.
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda x: x),
        (2, lambda x: x[:, ::-1]),
        (3, lambda x: x[::-1, ::-1]),
        (4, lambda x: x[::-1]),
        (5, lambda x: x.swapaxes(0, 1)),
        (6, lambda x: x[::-1].swapaxes(0, 1)),
        (7, lambda x: x[::-1, ::-1].swapaxes(0, 1)),
        (8, lambda x: x[:, ::-1].swapaxes(0, 1)),
    ],
)
def test_each_exif_orientation_is_applied(tmp_path, pixels, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "image.png", exif=exif)
    np.testing.assert_array_equal(read_rgb(tmp_path / "image.png"), upright(pixels))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_modes_that_convert_to_rgb_without_loss_are_read(tmp_path, pixels, mode):
    image = Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / "image.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "image.png"), np.asarray(image.convert("RGB")))


@pytest.mark.filterwarnings("error")
def test_palette_with_transparency_keeps_its_colors(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "image.png", transparency=bytes([0, 128]))
    np.testing.assert_array_equal(read_rgb(tmp_path / "image.png"), [[[10, 20, 30], [200, 100, 50]]])


@pytest.mark.parametrize(("color", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_png_is_refused_for_training(tmp_path, color, channels):
    path = tmp_path / "deep.png"
    path.write_bytes(_png(np.full((4, 5, channels), 300), color, 16))
    with pytest.raises(UserError, match=r"deep\.png has 16 bits"):
        read_rgb(path)
    path.write_bytes(_png(np.full((4, 5, channels), 200), color, 8))
    assert (read_rgb(path) == 200).all()


def test_16_bit_tiff_is_refused_for_training(tmp_path):
    # Pillow cannot write 16-bit RGB. This is the smallest such file: one white pixel.
    tags = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 3, 122), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 128)]
    tags += [(277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 1, 6)]
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + struct.pack("<I", 0)
    assert len(data) == 122
    (tmp_path / "deep.tif").write_bytes(data + struct.pack("<HHH", 16, 16, 16) + b"\xff" * 6)
    assert Image.open(tmp_path / "deep.tif").mode == "RGB"  # the mode does not show the depth
    with pytest.raises(UserError, match=r"deep\.tif has 16 bits"):
        read_rgb(tmp_path / "deep.tif")


def test_cmyk_without_a_profile_is_refused(tmp_path):
    Image.new("CMYK", (4, 4)).save(tmp_path / "print.jpg")
    with pytest.raises(UserError, match=r"print\.jpg is a CMYK image without a color profile"):
        read_rgb(tmp_path / "print.jpg")


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_content_that_is_not_an_image_is_refused(tmp_path, content):
    (tmp_path / "image.png").write_bytes(content)
    with pytest.raises(UserError, match=r"image\.png is not an image or is damaged"):
        read_rgb(tmp_path / "image.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_truncated_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    write_rgb(path, np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=rf"image\{suffix} is not an image or is damaged") as error:
        read_rgb(path)
    assert "\n" not in str(error.value)


def test_tiff_with_a_tag_of_the_wrong_type_raises_no_other_error(tmp_path, pixels):
    write_rgb(tmp_path / "whole.tif", pixels)
    whole = (tmp_path / "whole.tif").read_bytes()
    directory = int.from_bytes(whole[4:8], "little")
    for entry in range(int.from_bytes(whole[directory : directory + 2], "little")):
        damaged = bytearray(whole)
        damaged[directory + 2 + 12 * entry + 2] = 2  # ASCII
        (tmp_path / "damaged.tif").write_bytes(damaged)
        with contextlib.suppress(UserError):  # some tags are optional
            read_rgb(tmp_path / "damaged.tif")


def test_images_of_a_dataset_beyond_the_pixel_limit_are_to_be_reduced_not_allowed(tmp_path):
    Image.new("1", (15_000, 14_000)).save(tmp_path / "huge.png")
    with pytest.raises(
        UserError, match=r"huge\.png has more than 200000000 pixels: crop it, or reduce its size$"
    ) as caught:
        read_rgb(tmp_path / "huge.png")
    assert caught.value.parameter is None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp", ".avif"])
@pytest.mark.filterwarnings("error")
def test_the_pixel_limit_of_the_reader_holds_whatever_that_of_pillow_is(tmp_path, pixels, suffix, monkeypatch):
    path, count = tmp_path / f"image{suffix}", pixels.size // 3
    write_rgb(path, pixels)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    assert read_picture(path, count).pixels.shape == pixels.shape
    assert read_size(path, count)[1:] == pixels.shape[:2]
    assert Image.MAX_IMAGE_PIXELS == 1
    for read in (read_picture, read_size):
        with pytest.raises(
            UserError, match=rf"image\{suffix} declares .* the pixel limit of {count - 1}: pass a larger"
        ):
            read(path, count - 1)


def test_errors_name_the_image_as_the_caller_does():
    bomb = _saved(Image.new("1", (100, 100)), "PNG")
    for read in (read_picture, read_size):
        with pytest.raises(UserError, match=r"^gs://bucket/photo\.png is not an image"):
            read(b"?", name="gs://bucket/photo.png")
        with pytest.raises(UserError, match=r"^gs://bucket/photo\.png declares 100×100 pixels"):
            read(bomb, 9999, name="gs://bucket/photo.png")
        with pytest.raises(UserError, match=r"^standard input declares 100×100 pixels"):
            read(bomb, 9999)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*gone\.png: No such file"):
        read_rgb(tmp_path / "gone.png")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
def test_the_size_is_that_of_the_upright_image(name, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / name, exif=exif)
    form, height, width = read_size(tmp_path / name)
    assert read_size(tmp_path / name, upright=False)[0] == form
    assert (height, width) == (20, 10) == read_picture(tmp_path / name).pixels.shape[:2]
    assert form == read_picture(tmp_path / name).format


def test_the_size_of_a_png_that_is_not_turned_is_read_from_its_header(tmp_path):
    file = tmp_path / "a.png"
    Image.new("RGB", (20, 10)).save(file)
    file.write_bytes(file.read_bytes()[:45])  # no pixels
    assert read_size(file, upright=False) == ("PNG", 10, 20)
    with pytest.raises(UserError, match="damaged"):
        read_size(file)


def test_the_size_of_a_file_that_is_not_an_image_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"?")
    with pytest.raises(UserError, match=r"a\.png is not an image"):
        read_size(tmp_path / "a.png")


@pytest.mark.parametrize("masks", [(0xF800, 0x07E0, 0x001F), (0x7C00, 0x03E0, 0x001F)], ids=["5-6-5", "5-5-5"])
def test_16_bits_per_pixel_in_a_bmp_are_8_bits_per_channel(masks):
    values = np.random.default_rng(0).integers(0, 2**16, (6, 8)).astype("<u2")
    size = 14 + 40 + 12
    header = struct.pack("<2sIHHI", b"BM", size + values.nbytes, 0, 0, size)
    header += struct.pack("<IiiHHIIiiII", 40, 8, -6, 1, 16, 3, values.nbytes, 0, 0, 0, 0) + struct.pack("<3I", *masks)
    picture = read_picture(header + values.tobytes())
    assert picture.pixels.dtype == np.uint8
    expected = [(values & mask) / mask * 255 for mask in masks]
    np.testing.assert_allclose(picture.pixels, np.stack(expected, -1), atol=4)  # decoders round differently


def test_postscript_named_png_starts_no_interpreter(tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *args, **options: pytest.fail("Ghostscript started"))
    (tmp_path / "image.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n")
    with pytest.raises(UserError, match=r"image\.png is a PostScript file: render it to PNG"):
        read_picture(tmp_path / "image.png")


def test_12_bit_grayscale_in_a_tiff_covers_the_whole_range():
    samples = np.array([[0, 1, 2048, 4095]] * 8)
    packed = "".join(f"{sample:012b}" for sample in samples.ravel())
    content = int(packed, 2).to_bytes(len(packed) // 8, "big")
    tags = [(256, 4), (257, 8), (258, 12), (259, 1), (262, 1), (273, 8 + 2 + 12 * 9 + 4), (277, 1), (278, 8)]
    tags += [(279, len(content))]
    directory = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags)
    picture = read_picture(b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4) + content)
    np.testing.assert_allclose(picture.pixels[..., 0], samples * (65535 / 4095), atol=1)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyError(0), "is not an image or is damaged: its content is inconsistent"),
        (ValueError(), "is not an image or is damaged: its content is inconsistent"),
        (ValueError("two\n lines"), "is not an image or is damaged: two lines"),
        (MemoryError(), "does not fit in memory: use a smaller image"),
        (IsADirectoryError(21, "Is a directory"), "Is a directory"),
    ],
)
def test_every_failure_to_decode_has_a_reason(monkeypatch, error, message):
    def fail(*args):
        raise error

    monkeypatch.setattr("a2f_jax.images.reading.decode", fail)
    with pytest.raises(UserError, match=rf"standard input.* ?{message}$"):
        read_picture(b"")
