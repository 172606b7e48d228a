"""Color spaces other than sRGB: reads them from AVIF and HEIC, states them as ICC profiles, and converts to sRGB."""

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms

# Code points of ITU-T H.273, in the order of PNG's `cICP` chunk. Other primaries count as those of sRGB, and, as in
# browsers, other transfer functions, which are those of video, as that of sRGB.
_SRGB = 1
_PRIMARIES = {
    _SRGB: ("sRGB", ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))),
    9: ("BT.2020", ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))),
    12: ("Display P3", ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))),
}
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
_D65, _D50 = (0.3127, 0.3290), (0.96422, 1.0, 0.82521)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

_META_LIMIT = 1 << 20  # bytes of the box that describes an image; a few kilobytes are usual


def read_cicp(file: BinaryIO) -> bytes | None:
    """Returns the color space that an AVIF or HEIC file states by code points, if it differs from sRGB.

    Args:
      file: the file (ISO 23008-12), whose position changes.

    Returns:
      The data of a `cICP` chunk of PNG, or None for sRGB, and what counts as sRGB.
    """
    file.seek(0)
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">L4s", head)
        if kind == b"meta":
            # Later ones are those of thumbnails and gain maps.
            return next(_color_spaces(file.read(min(max(0, size - 8), _META_LIMIT))[4:]), None)
        if size < 8:  # 64-bit sizes are those of pixels, which follow the description
            return None
        file.seek(size - 8, 1)
    return None


def _boxes(content: memoryview, wanted: bytes) -> Iterator[memoryview]:
    at = 0
    while at + 8 <= len(content):
        size, kind = struct.unpack_from(">L4s", content, at)
        if kind == wanted:
            yield content[at + 8 : at + size]
        if size < 8:
            return
        at += size


def _color_spaces(meta: bytes) -> Iterator[bytes | None]:
    for properties in _boxes(memoryview(meta), b"iprp"):
        for container in _boxes(properties, b"ipco"):
            for color in _boxes(container, b"colr"):
                if color[:4] == b"nclx" and len(color) >= 10:
                    yield _cicp(*struct.unpack_from(">HH", color, 4))


def _cicp(primaries: int, transfer: int) -> bytes | None:
    if max(primaries, transfer) > 255:
        return None
    cicp = bytes([primaries, transfer, 0, 1])
    return cicp if transfer in _HDR_TRANSFERS or not _counts_as_srgb(cicp) else None


def _counts_as_srgb(cicp: bytes) -> bool:
    return _PRIMARIES.get(cicp[0], _PRIMARIES[_SRGB]) == _PRIMARIES[_SRGB] and cicp[1] not in _GAMMAS


def hdr_name(cicp: bytes) -> str | None:
    """Returns the name of the transfer function of a color space with high dynamic range, or None for others."""
    return _HDR_TRANSFERS.get(cicp[1])


def icc_profile_of(chunks: Mapping[bytes, bytes], gray: bool = False) -> bytes | None:
    """Returns an ICC profile for the color space that the chunks of a PNG file state, in PNG's order of precedence.

    Args:
      chunks: the data of the chunks by their types: `cICP` without high dynamic range, `sRGB`, `gAMA`, `cHRM`.
      gray: whether the profile is one for grayscale.

    Returns:
      The profile, or None for sRGB, what counts as sRGB, and values that make no sense.
    """
    if cicp := chunks.get(b"cICP"):
        if _counts_as_srgb(cicp):
            return None
        name, primaries = _PRIMARIES.get(cicp[0], _PRIMARIES[_SRGB])
        return _profile(name, primaries, _D65, _GAMMAS.get(cicp[1]), gray)
    if b"sRGB" in chunks:
        return None
    gamma = space = None
    if b"gAMA" in chunks:
        stored = int.from_bytes(chunks[b"gAMA"], "big") / 100_000  # the exponent of encoding, not of decoding
        if abs(stored * 2.2 - 1) > 0.01 and 0.1 <= stored <= 10:  # 1 / 2.2 is what files in sRGB state
            gamma = 1 / stored
    if b"cHRM" in chunks:
        x_y = np.array(struct.unpack(">8L", chunks[b"cHRM"])).reshape(4, 2) / 100_000
        if abs(x_y - [_D65, *_PRIMARIES[_SRGB][1]]).max() > 0.002 and _make_sense(x_y):
            space = "Chromaticities", x_y[1:].tolist(), x_y[0].tolist()
    if gamma is None and (gray or space is None):
        return None
    name, primaries, white = space or (*_PRIMARIES[_SRGB], _D65)
    return _profile(name, primaries, white, gamma, gray)


def _make_sense(x_y: np.ndarray) -> bool:
    # White in the triangle of the primaries, so that each takes part in it, and all with some luminance.
    if x_y.min() <= 0 or x_y[0].min() < 0.01 or x_y.sum(-1).max() > 1.001:
        return False
    columns = np.array([_xyz(*pair) for pair in x_y[1:]]).T
    return np.linalg.cond(columns) < 1e4 and bool((np.linalg.solve(columns, _xyz(*x_y[0])) > 0).all())


def _profile(
    name: str, primaries: Sequence[Sequence[float]], white_point: Sequence[float], gamma: float | None, gray: bool
) -> bytes:
    # Of ISO 15076-1, version 4. Without a gamma, the curve is that of sRGB.
    columns = np.array([_xyz(*xy) for xy in primaries]).T
    white = _xyz(*white_point)
    to_xyz = columns * np.linalg.solve(columns, white)
    adaptation = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ _D50 / (_BRADFORD @ white)) @ _BRADFORD
    red, green, blue = (adaptation @ to_xyz).T
    parameters = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045) if gamma is None else (gamma,)
    curve = b"para" + struct.pack(">LHH", 0, 3 if gamma is None else 0, 0) + _fixed(*parameters)
    tags = [
        (b"desc", _icc_text(("Gray" if gray else name) + (f", gamma {gamma:.3g}" if gamma else ""))),
        (b"cprt", _icc_text("No copyright, use freely")),
        (b"wtpt", b"XYZ " + bytes(4) + _fixed(*_D50)),
        (b"chad", b"sf32" + bytes(4) + _fixed(*adaptation.ravel())),
    ]
    if gray:
        tags.append((b"kTRC", curve))
    else:
        for kind, xyz in ((b"r", red), (b"g", green), (b"b", blue)):
            tags += [(kind + b"XYZ", b"XYZ " + bytes(4) + _fixed(*xyz)), (kind + b"TRC", curve)]
    table, data = struct.pack(">L", len(tags)), b""
    for kind, content in tags:
        table += kind + struct.pack(">LL", 128 + 4 + 12 * len(tags) + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    header = struct.pack(
        ">L4sL4s4s4s6H4s4sL4sLQL12s48x",
        128 + len(table) + len(data), b"", 0x04300000, b"mntr", b"GRAY" if gray else b"RGB ", b"XYZ ",
        2026, 1, 1, 0, 0, 0, b"acsp", b"", 0, b"", 0, 0, 0, _fixed(*_D50),
    )  # fmt: skip
    return header + table + data


def _xyz(x: float, y: float) -> np.ndarray:
    return np.array([x / y, 1, (1 - x - y) / y])


def _fixed(*numbers: float) -> bytes:
    return struct.pack(f">{len(numbers)}l", *(round(number * 65536) for number in numbers))


def _icc_text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return b"mluc" + struct.pack(">LLL4sLL", 0, 1, 12, b"enUS", len(encoded), 28) + encoded


def is_gray_profile(profile: bytes) -> bool:
    """Returns whether an ICC profile is one for grayscale, which files of color images must not have."""
    return profile[16:20] == b"GRAY"


def pil_to_srgb(image: Image.Image, profile: bytes) -> np.ndarray:
    """Converts a Pillow image to sRGB, with perceptual intent.

    Args:
      image: an image of a mode that the profile is for.
      profile: ICC profile.

    Returns:
      uint8 `[H, W, 3]`.

    Raises:
      ValueError: the profile is damaged, or for another mode.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return np.asarray(ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"))
    except (ImageCms.PyCMSError, OSError) as error:
        raise ValueError(str(error)) from error


def to_srgb(pixels: np.ndarray, profile: bytes) -> np.ndarray:
    """Converts the colors of an array to sRGB.

    Args:
      pixels: uint8 `[H, W, 1..4]`: gray or RGB; of 2 or 4 channels, the last is alpha, which stays.
      profile: ICC profile. That of a gray image may be for RGB.

    Returns:
      The image of the same shape. If the profile is damaged or does not fit, it is unchanged.
    """
    count = 1 if pixels.shape[-1] < 3 else 3
    colors, alpha = pixels[..., :count], pixels[..., count:]
    gray = is_gray_profile(profile)
    if gray and count == 3:
        return pixels
    three = np.ascontiguousarray(np.broadcast_to(colors, (*colors.shape[:2], 3)))
    image = Image.fromarray(colors[..., 0] if gray else three)
    try:
        return np.concatenate([pil_to_srgb(image, profile)[..., :count], alpha], -1)
    except ValueError:
        return pixels
