"""Checks which EXIF tags survive, and that malformed ones never cost an image."""

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from a2f_jax.images.exif import resized_exif, valid_exif
from a2f_jax.images.metadata import orientation_of, read_exif
from a2f_jax.images.reading import read_picture
from a2f_jax.images.writing import write_picture

EXIF, GPS, INTEROP = 0x8769, 0x8825, 0xA005


PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def exif_block(main=None, details=None, gps=None):
    exif = Image.Exif()
    for tag, value in {**(main or {}), EXIF: details, GPS: gps}.items():
        if value is not None:
            exif[tag] = value
    return exif.tobytes()


def tiff_structure(entries, details):
    """Returns an EXIF block, little-endian, of entries `(tag, type, values)` of its two main directories."""

    def directory(entries, start):
        head, data = len(entries).to_bytes(2, "little"), b""
        for tag, kind, values in entries:
            count = len(values) // (4 if kind == 4 else 1)
            at = start + 2 + 12 * len(entries) + 4 + len(data)
            head += struct.pack("<HHL", tag, kind, count)
            head += values.ljust(4, b"\0") if len(values) <= 4 else at.to_bytes(4, "little")
            data += values if len(values) > 4 else b""
        return head + bytes(4) + data

    pointer = [(EXIF, 4, bytes(4))] if details else []
    size = len(directory(entries + pointer, 8))
    pointer = [(EXIF, 4, (8 + size).to_bytes(4, "little"))] if details else []
    second = directory(details, 8 + size) if details else b""
    return struct.pack("<2sHL", b"II", 42, 8) + directory(entries + pointer, 8) + second


CAMERA = exif_block(
    {0x010F: "a maker", 0x0110: "a model", 0x0112: 6, 0x011A: 72.0, 0x011B: 72.0, 0x0128: 2, 0x0132: "2020:01:01"},
    {0x829A: 0.01, 0x9000: b"0230", 0xA002: 32, 0xA003: 24, 0x927C: b"maker note", INTEROP: {1: "R98"}},
    {1: "N", 2: (48.0, 8.0, 0.0)},
)  # fmt: skip


def saved(form, exif, **options):
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, form, exif=exif, **options)
    return file.getvalue()


def upscaled(content, form, scale=2):
    """Returns an image that has the metadata of one twice its size in each direction."""
    picture = read_picture(content)
    pixels = picture.pixels.repeat(scale, 0).repeat(scale, 1)
    file = io.BytesIO()
    write_picture(file, form, pixels.shape, pixels.dtype, [pixels], picture)
    image = Image.open(io.BytesIO(file.getvalue()))
    image.load()
    return image


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_tags_that_describe_the_photograph_are_kept(form):
    exif = upscaled(saved("JPEG", CAMERA), form).getexif()
    assert (exif[0x010F], exif[0x0110], exif[0x0132]) == ("a maker", "a model", "2020:01:01")
    details = exif.get_ifd(EXIF)
    assert (details[0x829A], details[0x9000]) == (0.01, b"0230")
    assert exif.get_ifd(INTEROP) == {1: "R98"}
    assert exif.get_ifd(GPS) == {1: "N", 2: (48.0, 8.0, 0.0)}
    assert orientation_of(exif) == 1


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_pixel_sizes_in_exif_become_those_of_the_result(form):
    image = upscaled(saved("JPEG", CAMERA), form)
    details = image.getexif().get_ifd(EXIF)
    assert image.size == (48, 64)  # rotated upright
    assert (details[0xA002], details[0xA003]) == (48, 64)


def test_tags_that_an_upscaled_image_makes_untrue_are_dropped():
    untrue = {0x927C: b"maker note", 0xA20E: 100.0, 0xA20F: 100.0, 0xA210: 2, 0xA214: (3, 4), 0xA420: "an identifier"}
    kept = read_exif(valid_exif(exif_block({0x0100: 32, 0x0111: 8}, {0x829A: 0.01, **untrue})))
    assert set(kept) == {EXIF}
    assert kept.get_ifd(EXIF) == {0x829A: 0.01}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_exif_made_from_a_tiff_describes_no_tiff(form, dtype):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    file = io.BytesIO()
    samples = PIXELS if dtype == np.uint8 else PIXELS / np.float32(255)
    tags = [(0x010F, "s", 0, "a maker", True)]
    tifffile.imwrite(file, samples, photometric="rgb", iccprofile=profile, extratags=tags, metadata=None)
    picture = read_picture(file.getvalue())
    file = io.BytesIO()
    write_picture(file, form, PIXELS.shape, np.dtype(np.uint8), [PIXELS], picture)
    with Image.open(file) as image:
        image.load()
        assert set(image.getexif()) <= {0x010F, 0x0131}
        assert image.getexif()[0x010F] == "a maker"
        assert image.info["icc_profile"] == profile


@pytest.mark.parametrize(
    "description",
    ['{"shape": [24, 32, 3]}', "ImageJ=1.11a\nimages=1\n", '<?xml version="1.0"?><!-- note --><OME xmlns="x"></OME>'],
)
def test_a_description_of_the_arrays_layout_is_dropped(description):
    file = io.BytesIO()
    tifffile.imwrite(file, PIXELS, photometric="rgb", description=description, metadata=None)
    picture = read_picture(file.getvalue())
    assert picture.exif is None or 270 not in read_exif(picture.exif)


def test_a_description_of_the_subject_is_kept_in_a_tiff():
    file = io.BytesIO()
    tifffile.imwrite(file, PIXELS, photometric="rgb", description="a cat", metadata=None)
    assert upscaled(file.getvalue(), "TIFF").tag_v2[270] == "a cat"


@pytest.mark.filterwarnings("ignore")  # Pillow warns about malformed metadata
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_damaged_exif_does_not_make_an_image_unreadable(form):
    """Overwrites up to 5 random bytes of an EXIF block, 150 times per format."""
    rng = np.random.default_rng(0)
    expected = [read_picture(saved(form, b"")).pixels]
    expected = [np.rot90(expected[0], turns) for turns in range(4)]
    expected += [image[:, ::-1] for image in expected]
    for _ in range(150):
        block = bytearray(CAMERA)
        for at in rng.integers(6, len(block), rng.integers(1, 6)):
            block[at] = rng.integers(0, 256)
        picture = read_picture(saved(form, bytes(block)))
        assert any(np.array_equal(picture.pixels, image) for image in expected)
        for output in ("PNG", "TIFF"):
            write_picture(io.BytesIO(), output, picture.pixels.shape, np.dtype(np.uint8), [picture.pixels], picture)


@pytest.mark.filterwarnings("ignore")  # Pillow warns about malformed metadata
@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0II*\0\x08\0\0\0\1\0\0\1\2\0\4\0\0\x0064x\0" + bytes(4),
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0XX*\0\x08\0\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
    ],
)
def test_a_malformed_exif_block_is_dropped(block):
    picture = read_picture(saved("JPEG", block))
    assert picture.pixels.shape == PIXELS.shape
    assert picture.exif is None


def test_a_block_without_sizes_is_not_changed():
    block = exif_block({0x010F: "a maker"})
    assert resized_exif(block, 10, 20) == block


def test_exif_is_copied_byte_by_byte():
    """The types that the standard demands, and text in UTF-8, which Pillow would not write."""
    texts = {0x010E: "Größe", 0x013B: "Jürgen Müller", 0x8298: "© 2024"}
    entries = [(tag, 2, text.encode() + b"\0") for tag, text in sorted(texts.items())]
    details = [
        (0x8832, 4, b"\x64\0\0\0"),
        (0x9101, 7, b"\1\2\3\0"),
        (0x9286, 7, b"ASCII\0\0\0a comment"),
        (0xA300, 7, b"\3"),
    ]
    picture = read_picture(saved("JPEG", b"Exif\0\0" + tiff_structure(entries, details)))
    for form in ("JPEG", "PNG", "WEBP", "AVIF"):
        file = io.BytesIO()
        write_picture(file, form, PIXELS.shape, PIXELS.dtype, [PIXELS], picture)
        # tifffile is an independent reader of such structures.
        with Image.open(file) as image:
            image.load()
            block = image.info["exif"].removeprefix(b"Exif\0\0")
        with tifffile.TiffFile(io.BytesIO(block)) as structure:
            found = {tag: structure.pages.first.tags[tag] for tag in texts}
            assert {tag: value.dtype for tag, value in found.items()} == dict.fromkeys(texts, 2)
        for _, _, data in [*entries, *details]:
            assert data in block
        exif = Image.Exif()
        exif.load(block)
        assert exif.get_ifd(EXIF) == {0x8832: 100, 0x9101: b"\1\2\3\0", 0x9286: b"ASCII\0\0\0a comment", 0xA300: b"\3"}
        for tag, kind, data in details:
            count = len(data) // (4 if kind == 4 else 1)
            assert tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + count.to_bytes(4, "little") in block


def test_exif_keeps_its_text_in_a_tiff():
    entries = [(0x013B, 2, "Jürgen".encode() + b"\0")]
    picture = read_picture(saved("JPEG", b"Exif\0\0" + tiff_structure(entries, [])))
    file = io.BytesIO()
    write_picture(file, "TIFF", PIXELS.shape, PIXELS.dtype, [PIXELS], picture)
    assert "Jürgen".encode() + b"\0" in file.getvalue()
    again = io.BytesIO()
    write_picture(again, "PNG", PIXELS.shape, PIXELS.dtype, [PIXELS], read_picture(file.getvalue()))
    assert "Jürgen".encode() + b"\0" in again.getvalue()


def test_the_entries_of_an_exif_block_cannot_fill_the_memory():
    """4,000 tags that all refer to the same 48 KB of a block would be 200 MB."""
    data = bytes([65]) * 48_000
    count = 4000
    directory = count.to_bytes(2, "little")
    for tag in range(count):
        directory += struct.pack("<HHLL", 0x9300 + tag, 7, len(data), 40 + 12 * count)
    start = struct.pack("<2sHLHHHLLL", b"II", 42, 8, 1, EXIF, 4, 1, 26, 0)
    block = (start + directory + bytes(4)).ljust(40 + 12 * count, b"\0") + data
    assert len(valid_exif(block)) < 1 << 25


@pytest.mark.parametrize("length", [1, 100, 800])
def test_many_entries_of_an_exif_block_take_little_time_and_memory(length):
    """A 200 KB block of 16,000 entries that all refer to the same bytes; quadratic code takes a minute."""
    count = 16_000
    data = bytes([65]) * max(length, 5)
    directory = count.to_bytes(2, "little")
    for tag in range(count):
        directory += struct.pack("<HHLL", 0x9300 + tag, 7, len(data), 40 + 12 * count)
    start = struct.pack("<2sHLHHHLLL", b"II", 42, 8, 1, EXIF, 4, 1, 26, 0)
    block = (start + directory + bytes(4)).ljust(40 + 12 * count, b"\0") + data
    assert len(valid_exif(b"Exif\0\0" * 50_000 + block)) < 1 << 21


@pytest.mark.parametrize("kind", [4, 13, 16, 18])
def test_the_exif_directory_of_a_bigtiff_is_found(kind):
    value = (16 + 8 + 20 + 8).to_bytes(8, "little")
    main = struct.pack("<QHHQ", 1, EXIF, kind, 1) + value + bytes(8)
    details = struct.pack("<QHHQ8sQ", 1, 0x9000, 7, 4, b"0230", 0)
    block = valid_exif(io.BytesIO(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) + main + details))
    assert read_exif(block).get_ifd(EXIF) == {0x9000: b"0230"}


def test_an_absurd_offset_costs_one_tag_only():
    entry = struct.pack("<HHQQ", 0x010E, 2, 100, 1 << 63) + struct.pack("<HHQ8s", 0x013B, 2, 8, b"someone\0")
    block = valid_exif(io.BytesIO(struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, 2) + entry + bytes(8)))
    assert dict(read_exif(block)) == {0x013B: "someone"}
