"""Color spaces other than sRGB: reads them from AVIF and HEIC, states them as ICC profiles, and converts to sRGB."""

import functools
import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms

# Code points of ITU-T H.273, in the order of PNG's `cICP` chunk.
_WIDE_PRIMARIES = {
    9: ("BT.2020", ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))),
    12: ("Display P3", ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))),
}
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
_D65, _D50 = (0.3127, 0.3290), (0.96422, 1.0, 0.82521)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

_META_LIMIT = 1 << 24  # bytes of the box that describes an image; a few kilobytes are usual
_CONTAINERS = (b"meta", b"iprp", b"ipco")


def read_cicp(file: BinaryIO) -> bytes | None:
    """Returns the color space that an AVIF or HEIC file states by code points, if it has more colors than sRGB.

    Args:
      file: the file (ISO 23008-12), read from its start.

    Returns:
      The data of a `cICP` chunk of PNG, or None for sRGB, and what is like it or unknown.
    """
    file.seek(0)
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">L4s", head)
        if kind == b"meta":
            for code_points in _code_points(file.read(min(size - 8, _META_LIMIT))[4:] if size > 12 else b""):
                primaries, transfer = code_points
                if primaries in _WIDE_PRIMARIES or transfer in _HDR_TRANSFERS:
                    return bytes([primaries, transfer, 0, 1])
                return None  # later ones are those of thumbnails and gain maps
            return None
        if size < 8:  # 64-bit sizes are those of pixels, which follow the description
            return None
        file.seek(size - 8, 1)
    return None


def _code_points(boxes: bytes) -> Iterator[tuple[int, int]]:
    at = 0
    while at + 8 <= len(boxes):
        size, kind = struct.unpack_from(">L4s", boxes, at)
        content = boxes[at + 8 : at + size]
        if kind in _CONTAINERS:
            yield from _code_points(content)
        elif kind == b"colr" and content[:4] == b"nclx" and len(content) >= 10:
            primaries, transfer = struct.unpack_from(">HH", content, 4)
            if primaries < 256 and transfer < 256:
                yield primaries, transfer
        if size < 8:
            return
        at += size


def hdr_name(cicp: bytes) -> str | None:
    """Returns the name of the transfer function of a color space with high dynamic range, or None for others."""
    return _HDR_TRANSFERS.get(cicp[1])


@functools.cache
def icc_profile_of(cicp: bytes) -> bytes | None:
    """Returns an ICC profile (ISO 15076-1) for a color space, or None for sRGB, and what is like it or unknown.

    Args:
      cicp: data of a `cICP` chunk of PNG without high dynamic range. As in browsers, the transfer functions of video
        count as that of sRGB.
    """
    name, primaries = _WIDE_PRIMARIES.get(cicp[0], ("", ()))
    if not primaries:
        return None
    columns = np.array([_xyz(*xy) for xy in primaries]).T
    white = _xyz(*_D65)
    to_xyz = columns * np.linalg.solve(columns, white)
    adaptation = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ _D50 / (_BRADFORD @ white)) @ _BRADFORD
    red, green, blue = (adaptation @ to_xyz).T
    curve = b"para" + struct.pack(">LHH", 0, 3, 0) + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    tags = [
        (b"desc", _icc_text(name)),
        (b"cprt", _icc_text("No copyright, use freely")),
        (b"wtpt", b"XYZ " + bytes(4) + _fixed(*_D50)),
        (b"chad", b"sf32" + bytes(4) + _fixed(*adaptation.ravel())),
        *(
            (kind, b"XYZ " + bytes(4) + _fixed(*xyz))
            for kind, xyz in ((b"rXYZ", red), (b"gXYZ", green), (b"bXYZ", blue))
        ),
        *((kind, curve) for kind in (b"rTRC", b"gTRC", b"bTRC")),
    ]
    table, data = struct.pack(">L", len(tags)), b""
    for kind, content in tags:
        table += kind + struct.pack(">LL", 128 + 4 + 12 * len(tags) + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    header = struct.pack(
        ">L4sL4s4s4s6H4s4sL4sLQL12s48x",
        128 + len(table) + len(data), b"", 0x04300000, b"mntr", b"RGB ", b"XYZ ",
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


def to_srgb(pixels: np.ndarray, profile: bytes) -> np.ndarray:
    """Converts colors to sRGB, with perceptual intent.

    Args:
      pixels: uint8 `[H, W, 1..4]`: gray or RGB; of 2 or 4 channels, the last is alpha, which stays.
      profile: ICC profile.

    Returns:
      The image of the same shape. If the profile is damaged or does not fit, it is unchanged.
    """
    gray = pixels.shape[-1] < 3
    colors = pixels[..., :1] if gray else pixels[..., :3]
    if is_gray_profile(profile) != gray:
        return pixels
    image = Image.fromarray(colors[..., 0] if gray else np.ascontiguousarray(colors))
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return pixels
    result = np.asarray(converted)[..., : colors.shape[-1]]
    return np.concatenate([result, pixels[..., colors.shape[-1] :]], -1)
