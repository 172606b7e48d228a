"""Writes PNG files strip by strip: 8 or 16 bits, grayscale or RGB, with or without alpha (W3C PNG, third edition)."""

import struct
import zlib
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np

_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_CHUNK = 1 << 20


def _write_chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))


def _paeth(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    # a is the byte to the left, b the one above, c the one above left; the nearest to a + b − c predicts best.
    left, above, corner = (x.astype(np.int16) for x in (a, b, c))
    to_left, to_above, to_corner = abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)
    nearest = np.where(to_above <= to_corner, b, c)
    return np.where((to_left <= to_above) & (to_left <= to_corner), a, nearest)


def _filtered(rows: np.ndarray, above: np.ndarray, step: int) -> bytes:
    # Per row, the filter (Sub, Up or Paeth) with the smallest sum of absolute differences: libpng's heuristic.
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
    """Writes a PNG image while holding only one strip of it in memory.

    Args:
      file: Binary file, written from its current position; it need not be seekable.
      shape: Height, width and channels of the whole image. 1 channel is grayscale, 2 are grayscale and alpha,
        3 are RGB, and 4 are RGB and alpha.
      dtype: uint8 or uint16.
      strips: Arrays `[h, width, channels]` of `dtype`, from top to bottom, whose heights add up to the height.
      icc_profile: ICC color profile to embed.
      exif: EXIF block, with or without the `Exif` prefix that JPEG uses.
      xmp: XMP packet.
      dpi: Horizontal and vertical resolution in dots per inch.
    """
    height, width, channels = shape
    depth = dtype.itemsize
    file.write(b"\x89PNG\r\n\x1a\n")
    _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * depth, _COLOR_TYPES[channels], 0, 0, 0))
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
