"""PNG written strip by strip, of 8 or 16 bits, grey or RGB, with or without alpha (W3C PNG, third edition)."""

import struct
import zlib
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_CHUNK = 1 << 20


def _write_chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))


def _paeth(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The one of left, above and above left that is nearest to left + above − above left."""
    left, above, corner = (x.astype(np.int16) for x in (a, b, c))
    to_left, to_above, to_corner = abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)
    nearest = np.where(to_above <= to_corner, b, c)
    return np.where((to_left <= to_above) & (to_left <= to_corner), a, nearest)


def _filtered(rows: np.ndarray, above: np.ndarray, step: int) -> bytes:
    """Applies to each row the filter (Sub, Up or Paeth) that leaves the smallest differences.

    Args:
      rows: uint8 `[h, bytes of a row]`.
      above: the row before them.
      step: bytes of a pixel.
    """
    upper = np.concatenate([above[None], rows[:-1]])
    left, corner = (np.pad(x, ((0, 0), (step, 0)))[:, :-step] for x in (rows, upper))
    candidates = np.stack([rows - left, rows - upper, rows - _paeth(left, upper, corner)])
    costs = np.abs(candidates.view(np.int8).astype(np.int16)).sum(-1, dtype=np.int64)
    best = costs.argmin(0)
    chosen = np.take_along_axis(candidates, best[None, :, None], 0)[0]
    kinds = np.array([1, 2, 4], np.uint8)[best]
    return np.concatenate([kinds[:, None], chosen], 1).tobytes()


def write_png(
    file: BinaryIO,
    shape: tuple[int, int, int],
    dtype: np.dtype,
    strips: Iterable[np.ndarray],
    *,
    icc_profile: bytes | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    dpi: tuple[float, float] | None = None,
) -> None:
    """Writes an image without ever holding more than a strip of it.

    Args:
      file: where to, from its position.
      shape: height, width, channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
      dtype: uint8 or uint16.
      strips: the image from top to bottom, `[h, width, channels]` each.
      icc_profile: colour profile.
      exif: EXIF block, with or without the JPEG prefix.
      xmp: XMP packet.
      dpi: dots per inch in x and y.
    """
    height, width, channels = shape
    depth = dtype.itemsize
    file.write(b"\x89PNG\r\n\x1a\n")
    _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * depth, _COLOUR_TYPES[channels], 0, 0, 0))
    if icc_profile:
        _write_chunk(file, b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc_profile))
    if dpi:
        _write_chunk(file, b"pHYs", struct.pack(">IIB", *(round(float(d) / 0.0254) for d in dpi), 1))
    if exif:
        _write_chunk(file, b"eXIf", exif.removeprefix(b"Exif\0\0"))
    if xmp:
        _write_chunk(file, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    compressor, above, pending = zlib.compressobj(6), np.zeros(width * channels * depth, np.uint8), b""
    for strip in strips:
        rows = np.ascontiguousarray(strip, dtype.newbyteorder(">")).view(np.uint8).reshape(len(strip), -1)
        pending += compressor.compress(_filtered(rows, above, channels * depth))
        above = rows[-1]
        if len(pending) >= _CHUNK:
            _write_chunk(file, b"IDAT", pending)
            pending = b""
    _write_chunk(file, b"IDAT", pending + compressor.flush())
    _write_chunk(file, b"IEND", b"")
