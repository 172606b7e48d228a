"""Checks PNG files built chunk by chunk from the specification."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from a2f_jax.errors import UserError
from a2f_jax.images.decoding import Picture
from a2f_jax.images.png import write_png
from a2f_jax.images.reading import read_picture
from a2f_jax.images.writing import write_picture

SIGNATURE = b"\x89PNG\r\n\x1a\n"
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def chunk(kind, data, checksum=None):
    checksum = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def header(width, height, depth, color):
    return struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)


def packed(samples, depth):
    """Returns unfiltered rows of samples `[H, W, C]`, compressed."""
    rows = []
    for row in samples.reshape(len(samples), -1):
        if depth == 16:
            content = row.astype(">u2").tobytes()
        else:
            bits = "".join(f"{sample:0{depth}b}" for sample in row)
            bits += "0" * (-len(bits) % 8)
            content = int(bits, 2).to_bytes(len(bits) // 8, "big")
        rows.append(b"\0" + content)
    return zlib.compress(b"".join(rows))


def png(samples, color, depth, *chunks, after=()):
    """Returns a PNG file with further chunks before and after its pixels."""
    start = chunk(b"IHDR", header(samples.shape[1], samples.shape[0], depth, color))
    pixels = chunk(b"IDAT", packed(samples, depth))
    return SIGNATURE + start + b"".join(chunks) + pixels + b"".join(after) + chunk(b"IEND", b"")


def noise(color, depth, shape=(9, 13)):
    return np.random.default_rng(color + depth).integers(0, 2**depth, (*shape, CHANNELS[color]), dtype=np.uint16)


@pytest.mark.parametrize(("color", "depth"), [(c, d) for c in (0, 2, 4, 6) for d in DEPTHS[c]])
def test_every_sample_of_every_kind_of_png_is_read(color, depth):
    samples = noise(color, depth)
    picture = read_picture(png(samples, color, depth))
    expected = samples * (1 if depth == 16 else 255 // (2**depth - 1))
    has_alpha = color in (4, 6)
    assert picture.pixels.dtype == (np.uint16 if depth == 16 else np.uint8)
    colors = expected[..., : expected.shape[-1] - has_alpha]
    np.testing.assert_array_equal(picture.pixels, np.broadcast_to(colors, (9, 13, 3)))
    if has_alpha:
        np.testing.assert_array_equal(picture.alpha, expected[..., -1])
    else:
        assert picture.alpha is None
    assert picture.gray == (color in (0, 4))


@pytest.mark.parametrize(("color", "depth"), [(c, d) for c in (0, 2) for d in DEPTHS[c]])
def test_the_transparent_color_becomes_alpha(color, depth):
    samples = noise(color, depth)
    key = samples[4, 5]
    content = png(samples, color, depth, chunk(b"tRNS", key.astype(">u2").tobytes()))
    picture = read_picture(content)
    transparent = (samples == key).all(-1)
    np.testing.assert_array_equal(picture.alpha, np.where(transparent, 0, np.iinfo(picture.alpha.dtype).max))
    assert picture.alpha.dtype == picture.pixels.dtype


def test_interlaced_16_bit_grayscale_with_alpha_is_read():
    samples = noise(4, 16, (8, 8))
    starts, steps = (
        ((0, 0), (0, 4), (4, 0), (0, 2), (2, 0), (0, 1), (1, 0)),
        ((8, 8), (8, 8), (8, 4), (4, 4), (4, 2), (2, 2), (2, 1)),
    )
    passes = [samples[y::dy, x::dx] for (y, x), (dy, dx) in zip(starts, steps, strict=True)]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for each in passes for row in each)
    start = header(8, 8, 16, 4)[:-1] + b"\1"
    content = SIGNATURE + chunk(b"IHDR", start) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    picture = read_picture(content)
    np.testing.assert_array_equal(picture.pixels[..., 1], samples[..., 0])
    np.testing.assert_array_equal(picture.alpha, samples[..., 1])


CARRIED = [
    (b"cICP", bytes([9, 16, 0, 1])),
    (b"mDCV", bytes(range(24))),
    (b"cLLI", bytes(range(8))),
    (b"sRGB", b"\2"),
    (b"gAMA", struct.pack(">I", 100000)),
    (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
    (b"tEXt", b"Author\0Sch\xf6n"),
    (b"zTXt", b"Warning\0\0" + zlib.compress(b"long " * 50)),
    (b"iTXt", "Title\0\0\0de\0Titel\0日本".encode()),
]


def chunks_of(content):
    at, found = 8, []
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        found.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += size + 12
    return found


def rewritten(picture, form="PNG"):
    file = io.BytesIO()
    samples = picture.pixels
    write_picture(file, form, samples.shape, samples.dtype, [samples], picture)
    return file.getvalue()


def test_color_space_and_text_chunks_are_copied_to_a_png():
    samples = noise(2, 8)
    content = png(samples, 2, 8, *(chunk(*c) for c in CARRIED[:-2]), after=[chunk(*c) for c in CARRIED[-2:]])
    written = rewritten(read_picture(content))
    found = chunks_of(written)
    kinds = [kind for kind, _ in found]
    assert [c for c in found if c[0] not in (b"IHDR", b"IDAT", b"IEND")] == CARRIED
    assert kinds.index(b"cHRM") < kinds.index(b"IDAT")
    with Image.open(io.BytesIO(written)) as image:
        image.load()
        assert (image.info["gamma"], image.info["srgb"], image.text["Title"]) == (1.0, 2, "日本")


def test_pixel_aspect_without_a_unit_is_copied_to_a_png():
    content = png(noise(2, 8), 2, 8, chunk(b"pHYs", struct.pack(">IIB", 4, 3, 0)))
    picture = read_picture(content)
    assert (picture.aspect, picture.dpi) == ((4, 3), None)
    assert (b"pHYs", struct.pack(">IIB", 4, 3, 0)) in chunks_of(rewritten(picture))


def test_chunks_that_describe_the_original_file_are_not_copied():
    untrue = [(b"tIME", bytes(7)), (b"sBIT", b"\5\5\5"), (b"bKGD", bytes(6)), (b"tEXt", b"Thumb::Image::Width\x0013")]
    content = png(noise(2, 8), 2, 8, *(chunk(*c) for c in untrue))
    assert {kind for kind, _ in chunks_of(rewritten(read_picture(content)))} == {b"IHDR", b"IDAT", b"IEND"}


def test_exif_stored_as_text_is_applied_and_written_once():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a maker"
    text = f"Raw profile type exif\0\nexif\n{len(exif.tobytes()):8}\n{exif.tobytes().hex()}\n"
    picture = read_picture(png(noise(2, 8), 2, 8, chunk(b"tEXt", text.encode())))
    assert picture.pixels.shape == (13, 9, 3)
    with Image.open(io.BytesIO(rewritten(picture))) as image:
        assert dict(image.getexif()) == {0x010F: "a maker"}
        assert not image.text


@pytest.mark.parametrize(
    "malformed",
    [
        chunk(b"eXIf", b"\0\0\x11\0\0\1\4\0"),
        chunk(b"eXIf", b""),
        chunk(b"iCCP", b"name\0\7garbage"),
        chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(1 << 25))),
        chunk(b"gAMA", b"\0"),
        chunk(b"cHRM", b"\0" * 5),
        chunk(b"sRGB", b""),
        chunk(b"pHYs", b"\0"),
        chunk(b"pHYs", bytes(9)),
        chunk(b"tRNS", b"\0"),
        chunk(b"zTXt", b"a\0\1b"),
        chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 25))),
        chunk(b"iTXt", b"a\0\1\0\0\0garbage"),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0garbage"),
        chunk(b"tEXt", b"no separator"),
        chunk(b"tEXt", b"Raw profile type exif\0zz\n1\n2\nxyz"),
        chunk(b"tEXt", b"Author\0me", checksum=0),
        chunk(b"acTL", b"\0"),
        chunk(b"fcTL", b"\0"),
        chunk(b"prIv", b"private"),
    ],
    ids=lambda c: f"{c[4:8].decode()}-{len(c)}",
)
def test_malformed_metadata_does_not_make_an_image_unreadable(malformed):
    samples = noise(2, 8)
    for content in (png(samples, 2, 8, malformed), png(samples, 2, 8, after=[malformed])):
        picture = read_picture(content)
        np.testing.assert_array_equal(picture.pixels, samples)
        assert {kind for kind, _ in chunks_of(rewritten(picture))} == {b"IHDR", b"IDAT", b"IEND"}


def test_pixels_that_do_not_match_their_checksum_are_refused():
    samples = noise(0, 8)  # as xcsn0g01 of PngSuite
    start, data = chunk(b"IHDR", header(13, 9, 8, 0)), packed(samples, 8)
    wrong = SIGNATURE + start + chunk(b"IDAT", data, checksum=1) + chunk(b"IEND", b"")
    with pytest.raises(UserError, match="damaged: the IDAT chunk of the PNG file does not match its checksum"):
        read_picture(wrong)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (SIGNATURE, "ends early"),
        (SIGNATURE + chunk(b"IEND", b""), "does not start with a valid header"),
        (SIGNATURE + chunk(b"IHDR", header(4, 4, 8, 0), checksum=0), "IHDR chunk .* does not match its checksum"),
        (SIGNATURE + chunk(b"IHDR", header(4, 4, 8, 1)), "color type 1 with 8 bits"),
        (SIGNATURE + chunk(b"IHDR", header(4, 4, 99, 2)), "color type 2 with 99 bits"),
        (SIGNATURE + chunk(b"IHDR", header(0, 4, 8, 2)), "header is invalid"),
        (SIGNATURE + chunk(b"IHDR", header(4, 4, 8, 0)) + chunk(b"IEND", b""), "contains no pixels"),
        (SIGNATURE + chunk(b"CgBI", bytes(4)), "unknown critical chunk CgBI"),
        (SIGNATURE + chunk(b"IHDR", header(4, 4, 8, 0)) + chunk(b"IDAT", bytes(9))[:-6], "IDAT chunk .* is truncated"),
        (SIGNATURE + chunk(b"IHDR", header(4, 4, 8, 0)) + bytes(20), "is not a PNG chunk type"),
        (SIGNATURE.replace(b"\r\n", b"\n") + chunk(b"IHDR", header(4, 4, 8, 0)), "its format is none of PNG"),
    ],
)
def test_the_reason_why_a_png_is_damaged_is_given(content, reason):
    with pytest.raises(UserError, match=f"is not an image or is damaged: .*{reason}"):
        read_picture(content)


@pytest.mark.parametrize("data", [b"", zlib.compress(b""), zlib.compress(bytes(30)), b"\x78\x9c" + b"\xff" * 9])
def test_damaged_pixels_are_refused_with_a_reason(data):
    content = SIGNATURE + chunk(b"IHDR", header(4, 9, 8, 2)) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    with pytest.raises(UserError, match=r"is damaged: \w.+"):
        read_picture(content)


def test_animations_are_refused():
    frames = [Image.new("RGB", (9, 9), color) for color in ("red", "blue", "green")]
    for default_image, count in ((False, 3), (True, 3)):
        file = io.BytesIO()
        frames[0].save(file, "PNG", save_all=True, append_images=frames[1:], default_image=default_image)
        with pytest.raises(UserError, match=f"has {count} frames"):
            read_picture(file.getvalue())


@pytest.mark.parametrize(
    ("comment", "expected"), [(b"plain", "plain"), ("日本".encode(), "日本"), (b"Sch\xf6n", "Schön"), (b"a\0", "a")]
)
def test_comments_of_other_formats_become_text(comment, expected):
    pixels = noise(2, 8).astype(np.uint8)
    with Image.open(io.BytesIO(rewritten(Picture(pixels, comments=(comment,))))) as image:
        assert image.text == {"Comment": expected}


def test_strips_of_any_height_take_little_memory():
    strip = np.random.default_rng(0).integers(0, 256, (256, 16_384, 1), dtype=np.uint8)
    tracemalloc.start()
    content = io.BytesIO()
    write_png(content, strip.shape, strip.dtype, [strip])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * strip.nbytes  # the file itself, and 20 times what is filtered at once, a quarter of the strip
    np.testing.assert_array_equal(np.asarray(Image.open(content)), strip[..., 0])
