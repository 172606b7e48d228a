import contextlib
import os
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from a2f_jax.errors import UserError
from a2f_jax.images import read_rgb, write_rgb


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)


def _png(samples: np.ndarray, colour: int, bits: int) -> bytes:
    """A PNG file from its specification, for what Pillow reads but does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".webp", ".tif", ".tiff", ".bmp"])
def test_lossless_formats_keep_every_pixel(tmp_path, pixels, suffix):
    write_rgb(tmp_path / f"new/image{suffix}", pixels)
    np.testing.assert_array_equal(read_rgb(tmp_path / f"new/image{suffix}"), pixels)
    assert [f.name for f in (tmp_path / "new").iterdir()] == [f"image{suffix}"]


def test_jpeg_is_close(tmp_path):
    smooth = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None] * 3, (64, 48, 3))
    write_rgb(tmp_path / "image.jpg", smooth)
    np.testing.assert_allclose(read_rgb(tmp_path / "image.jpg").astype(int), smooth, atol=4)


def test_a_file_is_replaced(tmp_path, pixels):
    write_rgb(tmp_path / "image.png", pixels)
    write_rgb(tmp_path / "image.png", 255 - pixels)
    np.testing.assert_array_equal(read_rgb(str(tmp_path / "image.png")), 255 - pixels)


def test_reads_inside_an_archive(tmp_path, pixels):
    write_rgb(tmp_path / "image.png", pixels)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.write(tmp_path / "image.png", "folder/image.png")
    np.testing.assert_array_equal(read_rgb(zipfile.Path(tmp_path / "images.zip", "folder/image.png")), pixels)


# Orientation as EXIF defines it: where the first row and the first column of the file belong in the upright image.
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
def test_exif_orientation_is_honoured(tmp_path, pixels, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "image.png", exif=exif)
    np.testing.assert_array_equal(read_rgb(tmp_path / "image.png"), upright(pixels))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_what_is_safely_rgb_is_converted(tmp_path, pixels, mode):
    image = Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / "image.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "image.png"), np.asarray(image.convert("RGB")))


@pytest.mark.filterwarnings("error")
def test_palette_with_transparency_keeps_its_colours(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "image.png", transparency=bytes([0, 128]))
    np.testing.assert_array_equal(read_rgb(tmp_path / "image.png"), [[[10, 20, 30], [200, 100, 50]]])


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_png_of_16_bits_is_refused(tmp_path, colour, channels):
    path = tmp_path / "deep.png"
    path.write_bytes(_png(np.full((4, 5, channels), 300), colour, 16))
    with pytest.raises(UserError, match=r"deep\.png (has|keeps its) 16 bits"):
        read_rgb(path)
    path.write_bytes(_png(np.full((4, 5, channels), 200), colour, 8))
    assert (read_rgb(path) == 200).all()


def test_tiff_of_16_bits_is_refused(tmp_path):
    # Pillow cannot write RGB of 16 bits: this is the smallest such file, one white pixel.
    tags = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 3, 122), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 128)]
    tags += [(277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 1, 6)]
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + struct.pack("<I", 0)
    assert len(data) == 122
    (tmp_path / "deep.tif").write_bytes(data + struct.pack("<HHH", 16, 16, 16) + b"\xff" * 6)
    assert Image.open(tmp_path / "deep.tif").mode == "RGB"  # so its mode does not give it away
    with pytest.raises(UserError, match=r"deep\.tif has 16 bits"):
        read_rgb(tmp_path / "deep.tif")


def test_cmyk_is_refused(tmp_path):
    Image.new("CMYK", (4, 4)).save(tmp_path / "print.jpg")
    with pytest.raises(UserError, match=r"print\.jpg is a CMYK image without a colour profile"):
        read_rgb(tmp_path / "print.jpg")


@pytest.mark.parametrize("content", [b"", b"no image at all"])
def test_what_is_no_image_is_refused(tmp_path, content):
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


def test_tiff_whose_numbers_are_texts_is_refused(tmp_path, pixels):
    write_rgb(tmp_path / "whole.tif", pixels)
    whole = (tmp_path / "whole.tif").read_bytes()
    directory = int.from_bytes(whole[4:8], "little")
    for entry in range(int.from_bytes(whole[directory : directory + 2], "little")):
        damaged = bytearray(whole)
        damaged[directory + 2 + 12 * entry + 2] = 2  # ASCII
        (tmp_path / "damaged.tif").write_bytes(damaged)
        with contextlib.suppress(UserError):  # some entries are not needed
            read_rgb(tmp_path / "damaged.tif")


def test_a_decompression_bomb_is_refused(tmp_path, pixels, monkeypatch):
    write_rgb(tmp_path / "image.png", pixels)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels.size // 3 // 2 - 1)
    with pytest.raises(UserError, match=r"image\.png is too large to be believed"):
        read_rgb(tmp_path / "image.png")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*gone\.png: No such file"):
        read_rgb(tmp_path / "gone.png")


def test_unknown_ending_is_refused(tmp_path, pixels):
    with pytest.raises(UserError, match=r"image\.xyz: the name must end in one of \.png"):
        write_rgb(tmp_path / "image.xyz", pixels)


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path, pixels):
    write_rgb(tmp_path / "image.webp", pixels)
    before = (tmp_path / "image.webp").read_bytes()
    with pytest.raises(UserError, match="WEBP holds 16383"):
        write_rgb(tmp_path / "image.webp", np.zeros((1, 16384, 3), np.uint8))
    assert (tmp_path / "image.webp").read_bytes() == before
    assert os.listdir(tmp_path) == ["image.webp"]


def test_a_file_in_place_of_the_folder_is_named(tmp_path, pixels):
    (tmp_path / "folder").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*image\.png"):
        write_rgb(tmp_path / "folder/image.png", pixels)
