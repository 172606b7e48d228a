"""Checks that colors look the same in every format, against LittleCMS and published matrices.

Differences of up to 2 levels are those of rounding to 8 bits twice, of four-digit matrices, and of lossy formats.
"""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from a2f_jax.errors import UserError
from a2f_jax.images import Picture
from a2f_jax.images.color_spaces import icc_profile_of, read_cicp, to_srgb
from a2f_jax.images.reading import read_picture
from a2f_jax.images.writing import check_format, write_picture

COLORS = np.random.default_rng(0).integers(40, 216, (16, 24, 3), dtype=np.uint8)
P3, BT2020 = bytes([12, 13, 0, 1]), bytes([9, 1, 0, 1])

# From linear light in these color spaces to linear light in sRGB: CSS Color 4, and ITU-R BT.2087 inverted.
P3_TO_SRGB = np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]])
BT2020_TO_SRGB = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])


def in_srgb(pixels, matrix):
    v = pixels / 255
    linear = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4) @ matrix.T
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def gray_profile(gamma):
    """Returns a minimal ICC profile (version 2) for grayscale."""
    curve = b"curv" + bytes(4) + (1).to_bytes(4, "big") + round(gamma * 256).to_bytes(2, "big") + bytes(2)
    white = b"XYZ " + bytes(4) + b"".join(round(65536 * x).to_bytes(4, "big") for x in (0.9642, 1, 0.8249))
    tags = {b"wtpt": white, b"kTRC": curve}
    table, data = len(tags).to_bytes(4, "big"), b""
    for name, content in tags.items():
        table += name + (132 + 12 * len(tags) + len(data)).to_bytes(4, "big") + len(content).to_bytes(4, "big")
        data += content
    size = (128 + len(table) + len(data)).to_bytes(4, "big")
    header = size + bytes(4) + b"\2\x10\0\0" + b"mntrGRAYXYZ " + bytes(12) + b"acsp" + bytes(28)
    return header + white[8:] + bytes(128 - len(header) - 12) + table + data


def written(picture, form):
    file = io.BytesIO()
    pixels = picture.pixels[..., :1] if picture.gray else picture.pixels
    if picture.alpha is not None:
        pixels = np.concatenate([pixels, picture.alpha[..., None]], -1)
    options = {"quality": 100} if form in ("JPEG", "AVIF") else {}
    write_picture(file, form, pixels.shape, pixels.dtype, [pixels], picture, **options)
    return file.getvalue()


def shown(content):
    """Returns the colors of a file in sRGB, as a program that respects its profile shows them."""
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        opaque = image.convert("L" if image.mode in ("L", "LA") else "RGB")
    if profile := image.info.get("icc_profile"):
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        opaque = ImageCms.profileToProfile(opaque, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return np.asarray(opaque.convert("RGB")).astype(int)


def with_nclx(content, primaries, transfer):
    """Returns an AVIF file with other code points, and without a profile."""
    at = content.index(b"colrnclx") + 8
    return content[:at] + bytes([0, primaries, 0, transfer]) + content[at + 4 :]


def avif(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "AVIF", quality=100, subsampling="4:4:4")
    return file.getvalue()


@pytest.mark.parametrize(("cicp", "matrix"), [(P3, P3_TO_SRGB), (BT2020, BT2020_TO_SRGB)])
def test_profiles_of_wide_color_spaces_agree_with_published_matrices(cicp, matrix):
    gray = COLORS[..., :1] // 2 + 64
    colors = np.clip(COLORS.astype(int) // 4 + gray * 3 // 4, 0, 255).astype(np.uint8)  # all of them exist in sRGB
    assert abs(to_srgb(colors, icc_profile_of({b"cICP": cicp})) - in_srgb(colors, matrix)).max() < 1.6


@pytest.mark.parametrize(
    "cicp", [bytes([1, 13, 0, 1]), bytes([1, 1, 0, 1]), bytes([2, 2, 0, 1]), bytes([77, 13, 0, 1])]
)
def test_srgb_and_what_is_unknown_need_no_profile(cicp):
    assert icc_profile_of({b"cICP": cicp}) is None


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "AVIF"])
def test_the_colors_of_an_avif_in_display_p3_look_the_same_in_every_format(form):
    content = with_nclx(avif(np.full((16, 16, 3), (200, 120, 90), np.uint8)), 12, 13)
    picture = read_picture(content)
    expected = in_srgb(picture.pixels.reshape(-1, 3).mean(0), P3_TO_SRGB)
    again = read_picture(written(picture, form))
    if form == "PNG":
        assert dict(again.png_chunks)[b"cICP"] == P3
        assert np.array_equal(again.pixels, picture.pixels)
    else:
        assert abs(shown(written(picture, form)).reshape(-1, 3).mean(0) - expected).max() < 2


def chromaticities(*values):
    return struct.pack(">8L", *(round(100_000 * value) for value in values))


LINEAR, GAMMA_18 = (100_000).to_bytes(4, "big"), (55_556).to_bytes(4, "big")
CHRM_P3 = chromaticities(0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize(("gamma", "exponent"), [(LINEAR, 1.0), (GAMMA_18, 1.8)])
@pytest.mark.parametrize("form", ["JPEG", "WEBP", "TIFF", "BMP", "AVIF"])
def test_the_gamma_of_a_png_looks_the_same_in_every_format(form, gamma, exponent, gray):
    pixels = (
        np.broadcast_to(COLORS[:1, :1, :1], (16, 16, 3)) if gray else np.full((16, 16, 3), (200, 120, 90), np.uint8)
    )
    picture = Picture(pixels, gray=gray, png_chunks=((b"gAMA", gamma),))
    linear = (pixels[0, 0] / 255) ** exponent
    expected = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert abs(shown(written(picture, form)).reshape(-1, 3).mean(0) - expected).max() < 2


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "TIFF", "BMP", "AVIF"])
def test_the_chromaticities_of_a_png_look_the_same_in_every_format(form):
    pixels = np.full((16, 16, 3), (200, 120, 90), np.uint8)
    picture = Picture(pixels, png_chunks=((b"gAMA", (45_455).to_bytes(4, "big")), (b"cHRM", CHRM_P3)))
    expected = in_srgb(pixels[0, 0], P3_TO_SRGB)
    assert abs(shown(written(picture, form)).reshape(-1, 3).mean(0) - expected).max() < 2


@pytest.mark.parametrize(
    "chunks",
    [
        {},
        {b"gAMA": (45_455).to_bytes(4, "big")},
        {b"sRGB": b"\0", b"gAMA": LINEAR, b"cHRM": CHRM_P3},
        {b"cICP": bytes([1, 13, 0, 1]), b"gAMA": LINEAR},
        {b"cHRM": chromaticities(0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)},
        {b"gAMA": bytes(4)},
        {b"gAMA": b"\xff" * 4},
        {b"gAMA": (1).to_bytes(4, "big")},
        {b"cHRM": bytes(32)},
        {b"cHRM": b"\xff" * 32},
        {b"cHRM": chromaticities(0.3127, 0.3290, 0.6, 0.3, 0.6, 0.3, 0.15, 0.06)},  # red is green
        {b"cHRM": chromaticities(0.7, 0.2, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)},  # white outside of the triangle
    ],
)
def test_chunks_that_state_srgb_or_make_no_sense_need_no_profile(chunks):
    assert icc_profile_of(chunks) is None
    assert icc_profile_of(chunks, gray=True) is None


def test_chromaticities_do_not_concern_gray_images():
    assert icc_profile_of({b"cHRM": CHRM_P3}, gray=True) is None


def test_code_points_of_srgb_and_damaged_boxes_count_as_srgb():
    content = avif(COLORS)
    assert read_cicp(io.BytesIO(content)) is None
    wide = with_nclx(content, 12, 13)
    assert read_cicp(io.BytesIO(wide)) == P3
    for length in range(0, wide.index(b"colrnclx") + 14):
        assert read_cicp(io.BytesIO(wide[:length])) in (None, P3)
    rng = np.random.default_rng(0)
    end = wide.index(b"mdat")
    for _ in range(300):
        damaged = bytearray(wide)
        for at in rng.integers(0, end, 3):
            damaged[at] = rng.integers(256)
        read_cicp(io.BytesIO(bytes(damaged)))  # ends, whatever it finds


@pytest.mark.parametrize("transfer", [16, 18])
def test_high_dynamic_range_is_kept_in_png_and_refused_elsewhere(transfer):
    picture = read_picture(with_nclx(avif(COLORS), 9, transfer))
    assert dict(read_picture(written(picture, "PNG")).png_chunks)[b"cICP"] == bytes([9, transfer, 0, 1])
    check_format("PNG", "a.png", picture, 16, 24)
    for form in ("JPEG", "WEBP", "TIFF", "BMP", "AVIF"):
        with pytest.raises(UserError, match=r"high dynamic range.*use PNG"):
            check_format(form, "a", picture, 16, 24)


@pytest.mark.parametrize(
    ("form", "transparent"),
    [
        *((form, False) for form in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "AVIF")),
        *((form, True) for form in ("PNG", "WEBP", "TIFF", "AVIF")),
    ],
)
def test_grayscale_with_a_profile_looks_the_same_in_every_format(form, transparent):
    image = Image.fromarray(np.full((16, 16), 100, np.uint8))
    if transparent:
        image.putalpha(Image.fromarray(np.full((16, 16), 200, np.uint8)))
    file = io.BytesIO()
    image.save(file, "PNG", icc_profile=gray_profile(1.8))
    content = written(read_picture(file.getvalue()), form)
    linear = (100 / 255) ** 1.8
    assert abs(shown(content) - 255 * (1.055 * linear ** (1 / 2.4) - 0.055)).max() < 2
    if transparent:
        assert (read_picture(content).alpha == 200).all()


def test_bmp_is_converted_to_srgb():
    file = io.BytesIO()
    Image.fromarray(COLORS).save(file, "PNG", icc_profile=icc_profile_of({b"cICP": P3}))
    content = written(read_picture(file.getvalue()), "BMP")
    assert abs(shown(content) - shown(file.getvalue())).max() <= 1


def test_a_damaged_profile_leaves_the_colors_as_they_are():
    for profile in (b"damaged", bytes(200), gray_profile(2.0), icc_profile_of({b"cICP": P3})[:200]):
        assert np.array_equal(to_srgb(COLORS, profile), COLORS)


def test_a_gray_image_with_a_profile_for_rgb_looks_the_same_in_bmp():
    profile = icc_profile_of({b"cICP": bytes([1, 8, 0, 1])})  # linear light
    gray = to_srgb(np.full((4, 4, 1), 100, np.uint8), profile)
    assert gray.shape == (4, 4, 1)
    assert abs(int(gray[0, 0, 0]) - 255 * (1.055 * (100 / 255) ** (1 / 2.4) - 0.055)) < 2


@pytest.mark.parametrize(("transfer", "gamma"), [(4, 2.2), (5, 2.8), (8, 1.0)])
def test_transfer_functions_that_are_a_power_have_profiles(transfer, gamma):
    shown = to_srgb(np.full((2, 2, 3), 150, np.uint8), icc_profile_of({b"cICP": bytes([1, transfer, 0, 1])}))
    linear = (150 / 255) ** gamma
    assert abs(shown - 255 * (1.055 * linear ** (1 / 2.4) - 0.055)).max() < 1.6


def test_deeply_nested_boxes_are_not_followed():
    content = with_nclx(avif(COLORS), 12, 13)
    at = content.index(b"ipco") - 4
    size = int.from_bytes(content[at : at + 4], "big")
    boxes = content[at : at + size]
    for _ in range(3000):
        boxes = (len(boxes) + 8).to_bytes(4, "big") + b"ipco" + boxes
    for start in (b"meta", b"iprp"):
        place = content.index(start) - 4
        grown = int.from_bytes(content[place : place + 4], "big") + len(boxes) - size
        content = content[:place] + grown.to_bytes(4, "big") + content[place + 4 :]
    assert read_cicp(io.BytesIO(content[:at] + boxes + content[at + size :])) is None
