"""Scans PNG files, and writes them strip by strip (W3C PNG, third edition)."""

import dataclasses
import io
import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

import numpy as np

from a2f_jax.images.metadata import valid_dpi

SIGNATURE = b"\x89PNG\r\n\x1a\n"

Chunk = tuple[bytes, bytes]
"""Type and data of a PNG chunk."""

_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_DECODED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_PALETTE_COLOR = 3

COLOR_SPACE = {b"cICP": 4, b"mDCV": 24, b"cLLI": 8, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}
"""The chunks that state how the samples encode light, with the size of each in bytes."""

_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_XMP_KEYWORD = b"XML:com.adobe.xmp"
# ImageMagick stores whole metadata blocks as text, and thumbnailers the size and the date of the original.
_REPLACED_TEXT = re.compile(rb"Raw profile type |Thumb::|date:|exif:|png:|XML:com\.adobe\.xmp\0")
_INFLATED_LIMIT = 1 << 24  # bytes; a few compressed bytes can inflate to gigabytes


@dataclasses.dataclass(frozen=True)
class PngContent:
    """The checked content of a PNG file.

    Attributes:
      stream: PNG file with nothing but what determines the pixels, for a decoder.
      depth: bits per sample.
      frames: number of images, more than 1 in an animation.
      transparent_color: for grayscale and RGB, the samples of the color that is transparent, or None.
      icc_profile: ICC color profile, or None.
      exif: EXIF block, or None.
      xmp: XMP packet, or None.
      dpi: horizontal and vertical resolution in dots per inch, or None.
      aspect: pixels per unknown unit, horizontally and vertically, or None.
      chunks: color space and text chunks, which stay valid when the image is upscaled.
    """

    stream: BinaryIO
    depth: int
    frames: int
    transparent_color: tuple[int, ...] | None
    icc_profile: bytes | None
    exif: bytes | None
    xmp: bytes | None
    dpi: tuple[float, float] | None
    aspect: tuple[int, int] | None
    chunks: tuple[Chunk, ...]


def scan_png(file: BinaryIO) -> PngContent:
    """Checks the structure and the checksums of a PNG file, and collects its metadata.

    Args:
      file: the file, read from its current position.

    Returns:
      The content. Damaged metadata is dropped.

    Raises:
      ValueError: what determines the pixels is damaged; the message gives the reason.
    """
    stream = io.BytesIO()
    stream.write(file.read(len(SIGNATURE)))
    pixels: dict[bytes, bytes] = {}
    metadata: dict[bytes, list[bytes]] = {}
    frames: list[bool] = []  # for each frame of an animation, whether the default image precedes it
    while b"IEND" not in pixels:
        header = file.read(8)
        length, kind = int.from_bytes(header[:4], "big"), header[4:]
        if not (len(kind) == 4 and kind.isalpha()):
            if b"IDAT" in pixels:
                break  # the decoder notices if pixels are missing
            raise ValueError("the PNG file ends early" if len(kind) < 4 else f"{kind!r} is not a PNG chunk type")
        data, checksum = file.read(length), file.read(4)
        intact = checksum == struct.pack(">I", zlib.crc32(kind + data))
        if kind in _DECODED or kind[:1].isupper():
            if not intact:
                problem = "is truncated" if len(checksum) < 4 else "does not match its checksum"
                raise ValueError(f"the {kind.decode()} chunk of the PNG file {problem}")
            if kind not in _DECODED:
                raise ValueError(f"the PNG file contains the unknown critical chunk {kind.decode()}")
            if not pixels:
                _check_header(kind, data)
            if kind != b"tRNS" or pixels[b"IHDR"][9] == _PALETTE_COLOR:
                stream.write(header + data + checksum)
            pixels[kind] = data if kind != b"IDAT" else b""
        elif intact:
            metadata.setdefault(kind, []).append(data)
            if kind == b"fcTL":
                frames.append(b"IDAT" in pixels)
    if b"IDAT" not in pixels:
        raise ValueError("the PNG file contains no pixels")
    stream.seek(0)
    depth, color = pixels[b"IHDR"][8:10]
    text = {data.partition(b"\0")[0]: (kind, data) for kind in _TEXT for data in metadata.get(kind, ())}
    xmp = _text_of(text.get(_XMP_KEYWORD)) or _raw_profile(text.get(b"Raw profile type xmp"))
    exif = _first(metadata, b"eXIf") or _raw_profile(
        text.get(b"Raw profile type exif") or text.get(b"Raw profile type APP1")
    )
    return PngContent(
        stream=stream,
        depth=depth,
        frames=len(frames) + frames[0] if b"acTL" in metadata and frames else 1,
        transparent_color=_transparent_color(pixels.get(b"tRNS"), depth, {0: 1, 2: 3}.get(color, 0)),
        icc_profile=_icc_profile(_first(metadata, b"iCCP")),
        exif=exif,
        xmp=xmp,
        **_density(_first(metadata, b"pHYs")),
        chunks=(
            *((kind, d) for kind, size in COLOR_SPACE.items() if len(d := _first(metadata, kind) or b"") == size),
            *((kind, d) for kind in _TEXT for d in metadata.get(kind, ()) if _is_valid_text(kind, d)),
        ),
    )


def _check_header(kind: bytes, data: bytes) -> None:
    if kind != b"IHDR" or len(data) != 13:
        raise ValueError("the PNG file does not start with a valid header")
    depth, color, compression, filtering, interlacing = data[8:]
    if depth not in _DEPTHS.get(color, ()):
        raise ValueError(f"the PNG header states color type {color} with {depth} bits, which do not exist")
    if compression or filtering or interlacing > 1 or not all(struct.unpack(">II", data[:8])):
        raise ValueError("the PNG header is invalid")


def _first(metadata: dict[bytes, list[bytes]], kind: bytes) -> bytes | None:
    return metadata.get(kind, [None])[0]


def _transparent_color(data: bytes | None, depth: int, channels: int) -> tuple[int, ...] | None:
    if not data or len(data) != 2 * channels:
        return None
    return tuple(value & ((1 << depth) - 1) for value in struct.unpack(f">{channels}H", data))


def _density(data: bytes | None) -> dict[str, Any]:
    density: dict[str, Any] = {"dpi": None, "aspect": None}
    if data and len(data) == 9:
        x, y, unit = struct.unpack(">IIB", data)
        if unit == 1:
            density["dpi"] = valid_dpi(x, y, 0.0254)
        elif unit == 0 and x and y:
            density["aspect"] = x, y
    return density


def _inflated(data: bytes) -> bytes | None:
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(data, _INFLATED_LIMIT)
    except zlib.error:
        return None
    return content if inflater.eof else None


def _icc_profile(data: bytes | None) -> bytes | None:
    _, _, compressed = (data or b"").partition(b"\0")
    return _inflated(compressed[1:]) if compressed[:1] == b"\0" else None


def _text_of(chunk: Chunk | None) -> bytes | None:
    """Returns the uncompressed text of a text chunk, or None if it is malformed."""
    kind, data = chunk or (b"", b"")
    keyword, separator, text = data.partition(b"\0")
    if not (separator and 0 < len(keyword) < 80):
        return None
    if kind == b"tEXt":
        return text
    if kind == b"zTXt":
        return _inflated(text[1:]) if text[:1] == b"\0" else None
    flags, fields = text[:2], text[2:].split(b"\0", 2)
    if len(fields) < 3 or flags not in (b"\0\0", b"\1\0"):
        return None
    return fields[2] if flags == b"\0\0" else _inflated(fields[2])


def _is_valid_text(kind: bytes, data: bytes) -> bool:
    return not _REPLACED_TEXT.match(data) and _text_of((kind, data)) is not None


def _raw_profile(chunk: Chunk | None) -> bytes | None:
    # ImageMagick's form: name and length on lines of their own, then hexadecimal digits.
    lines = (_text_of(chunk) or b"").split(b"\n")
    try:
        return bytes.fromhex(b"".join(lines[3:]).decode()) or None
    except ValueError:
        return None


_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by number of channels
_CHUNK = 1 << 20
_FILTERED = 1 << 20  # bytes of pixels that are filtered at once, which takes 20 times as much memory


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


def _comment_chunk(comment: bytes) -> Chunk:
    comment = comment.replace(b"\0", b"")
    try:
        text = comment.decode()
    except UnicodeDecodeError:
        text = comment.decode("latin-1")
    if text.isascii():
        return b"tEXt", b"Comment\0" + comment
    return b"iTXt", b"Comment\0\0\0\0\0" + text.encode()


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
    aspect: tuple[int, int] | None = None,
    comments: Sequence[bytes] = (),
    chunks: Sequence[Chunk] = (),
) -> None:
    """Writes a PNG image while holding only one strip of it in memory.

    Args:
      file: binary file, written from its current position; it need not be seekable.
      shape: height, width and channels of the whole image. 1 channel is grayscale, 2 are grayscale and alpha,
        3 are RGB, and 4 are RGB and alpha.
      dtype: uint8 or uint16.
      strips: arrays `[h, width, channels]` of `dtype`, from top to bottom, whose heights add up to the height.
      icc_profile: ICC color profile to embed.
      exif: EXIF block, with or without the `Exif` prefix that JPEG uses.
      xmp: XMP packet.
      dpi: horizontal and vertical resolution in dots per inch.
      aspect: pixels per unknown unit, horizontally and vertically; only written without `dpi`.
      comments: comments of a JPEG or GIF file.
      chunks: color space and text chunks.
    """
    height, width, channels = shape
    depth = dtype.itemsize
    file.write(SIGNATURE)
    _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * depth, _COLOR_TYPES[channels], 0, 0, 0))
    if icc_profile:
        _write_chunk(file, b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc_profile))
    for chunk in chunks:
        _write_chunk(file, *chunk)
    for comment in comments:
        _write_chunk(file, *_comment_chunk(comment))
    if dpi:
        _write_chunk(file, b"pHYs", struct.pack(">IIB", *(round(d / 0.0254) for d in dpi), 1))
    elif aspect:
        _write_chunk(file, b"pHYs", struct.pack(">IIB", *aspect, 0))
    if exif:
        _write_chunk(file, b"eXIf", exif.removeprefix(b"Exif\0\0"))
    if xmp:
        _write_chunk(file, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    compressor, above, pending = zlib.compressobj(6), np.zeros(width * channels * depth, np.uint8), b""
    at_once = max(1, _FILTERED // len(above))
    for part in (strip[i : i + at_once] for strip in strips for i in range(0, len(strip), at_once)):
        rows = np.ascontiguousarray(part, dtype.newbyteorder(">")).view(np.uint8).reshape(len(part), -1)
        pending += compressor.compress(_filtered(rows, above, channels * depth))
        above = rows[-1]
        if len(pending) >= _CHUNK:
            _write_chunk(file, b"IDAT", pending)
            pending = b""
    _write_chunk(file, b"IDAT", pending + compressor.flush())
    _write_chunk(file, b"IEND", b"")
