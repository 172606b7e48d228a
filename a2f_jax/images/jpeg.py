"""Separates the metadata of a JPEG file from what determines its pixels."""

import dataclasses
import io
from typing import BinaryIO

from a2f_jax.images.metadata import read_exif, resolution_of, valid_dpi

_START_OF_SCAN, _END_OF_IMAGE, _COMMENT = 0xDA, 0xD9, 0xFE
_WITHOUT_DATA = (0x01, *range(0xD0, 0xD9))
# Start-of-frame markers. 0xC4, 0xC8 and 0xCC lie in their range and are others.
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_JPEG_LS = 0xF7
_JFIF, _ADOBE = b"JFIF\0", b"Adobe"
_EXIF, _XMP, _ICC = b"Exif\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_PHOTOSHOP, _IPTC = b"Photoshop 3.0\0", 0x0404
_RESOURCE_SIGNATURES = (b"8BIM", b"AgHg", b"DCSR", b"MeSa", b"PHUT")
_UNITS_PER_INCH = {1: 1, 2: 2.54}  # by the unit in a JFIF header: inches, centimeters


@dataclasses.dataclass(frozen=True)
class JpegContent:
    """The content of a JPEG file.

    Attributes:
      stream: JPEG file with nothing but what determines the pixels, for a decoder.
      kind: what a decoder for baseline and progressive JPEG cannot read, such as "12-bit JPEG", or None.
      icc_profile: ICC color profile, or None.
      exif: EXIF block, or None.
      xmp: XMP packet, or None.
      iptc: IPTC record (IIM), or None.
      dpi: horizontal and vertical resolution in dots per inch, or None.
      aspect: pixels per unknown unit, horizontally and vertically, if they differ; otherwise None.
      comments: comments, in their order.
    """

    stream: BinaryIO
    kind: str | None
    icc_profile: bytes | None
    exif: bytes | None
    xmp: bytes | None
    iptc: bytes | None
    dpi: tuple[float, float] | None
    aspect: tuple[int, int] | None
    comments: tuple[bytes, ...]


def scan_jpeg(file: BinaryIO) -> JpegContent:
    """Collects the metadata of a JPEG file.

    Args:
      file: the file, read from its current position.

    Returns:
      The content. Damaged metadata is dropped.

    Raises:
      ValueError: the file ends before its pixels.
    """
    stream = io.BytesIO()
    stream.write(file.read(2))
    kind, density, exif, xmp, resources = None, b"", b"", None, b""
    profile: list[bytes] = []
    comments: list[bytes] = []
    while (marker := _next_marker(file)) != _START_OF_SCAN:
        if marker in _WITHOUT_DATA:
            continue
        size = file.read(2)
        data = file.read(max(0, int.from_bytes(size, "big") - 2))
        if marker == _END_OF_IMAGE or len(size) < 2 or len(data) < int.from_bytes(size, "big") - 2:
            raise ValueError("the JPEG file ends before its pixels")
        if marker == _COMMENT:
            comments.append(data)
        elif 0xE0 <= marker < 0xF0:
            # The decoder derives the color space from these two.
            if (data.startswith(_JFIF) and len(data) >= 14) or (data.startswith(_ADOBE) and len(data) >= 12):
                stream.write(bytes([0xFF, marker]) + size + data)
                density = density or (data[7:12] if data.startswith(_JFIF) else b"")
            elif data.startswith(_EXIF):
                exif += data[6:]  # large blocks continue in further segments
            elif data.startswith(_XMP):
                xmp = xmp or data[len(_XMP) :]
            elif data.startswith(_ICC):
                profile.append(data[len(_ICC) :])
            elif data.startswith(_PHOTOSHOP):
                resources += data[len(_PHOTOSHOP) :]
        else:
            if marker in _FRAMES and data:
                kind = "a JPEG-LS image" if marker == _JPEG_LS else f"a {data[0]}-bit JPEG" if data[0] != 8 else None
            stream.write(bytes([0xFF, marker]) + size + data)
    stream.write(bytes([0xFF, marker]) + file.read())
    stream.seek(0)
    dpi, aspect = _resolution(density)
    if not dpi and exif:
        dpi = resolution_of(read_exif(exif))
    return JpegContent(
        stream, kind, _icc_profile(profile), exif or None, xmp, _iptc(resources), dpi, aspect, tuple(comments)
    )


def _next_marker(file: BinaryIO) -> int:
    byte = file.read(1)
    while True:
        while byte not in (b"\xff", b""):  # decoders skip what lies between segments
            byte = file.read(1)
        while byte == b"\xff":
            byte = file.read(1)
        if not byte:
            raise ValueError("the JPEG file ends before its pixels")
        if byte != b"\0":
            return byte[0]


def _resolution(density: bytes) -> tuple[tuple[float, float] | None, tuple[int, int] | None]:
    if not density:
        return None, None
    unit, x, y = density[0], int.from_bytes(density[1:3], "big"), int.from_bytes(density[3:], "big")
    if unit == 0:
        return None, (x, y) if x and y and x != y else None
    return valid_dpi(x, y, _UNITS_PER_INCH[unit]) if unit in _UNITS_PER_INCH else None, None


def _icc_profile(segments: list[bytes]) -> bytes | None:
    parts = {data[0]: data[2:] for data in segments if len(data) > 2}
    counts = {data[1] for data in segments if len(data) > 2}
    if counts != {len(parts)} or sorted(parts) != list(range(1, len(parts) + 1)):
        return None
    return b"".join(parts[number] for number in sorted(parts))


def _iptc(resources: bytes) -> bytes | None:
    # Each of Photoshop's resources has a number, a name, and a size; names and data have an even length.
    at = 0
    while resources[at : at + 4] in _RESOURCE_SIGNATURES and at + 7 < len(resources):
        number, name = int.from_bytes(resources[at + 4 : at + 6], "big"), resources[at + 6]
        at += 6 + name // 2 * 2 + 2
        size = int.from_bytes(resources[at : at + 4], "big")
        data = resources[at + 4 : at + 4 + size]
        if number == _IPTC:
            return data if 0 < len(data) == size else None
        at += 4 + size + size % 2
    return None


def iptc_segment(record: bytes) -> bytes:
    """Returns the segment of a JPEG file that holds an IPTC record, or nothing if the record is too large for one."""
    resource = b"8BIM" + _IPTC.to_bytes(2, "big") + b"\0\0" + len(record).to_bytes(4, "big") + record
    data = _PHOTOSHOP + resource + bytes(len(record) % 2)
    return b"\xff\xed" + (len(data) + 2).to_bytes(2, "big") + data if len(data) < 2**16 - 2 else b""
