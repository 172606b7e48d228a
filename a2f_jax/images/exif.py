"""Copies the EXIF tags that are still true of an upscaled image, byte by byte (CIPA DC-008, Exif 3.0; TIFF 6.0).

Pillow decodes tags and encodes them again, which changes types, and replaces text that is not ASCII by question marks.
"""

import dataclasses
import io
import re
import struct
from collections.abc import Callable
from typing import BinaryIO

from PIL import ExifTags

from a2f_jax.images.metadata import RESOLUTION_TAGS, without_prefix

_POINTERS = _EXIF, _GPS, _INTEROP = ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop
_X_RESOLUTION, _Y_RESOLUTION, _UNIT = RESOLUTION_TAGS
_WIDTH, _HEIGHT = ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight

# Of the first directory only what describes the subject, the author and the device. The rest describes how a file is
# stored: in an EXIF block made from a TIFF that is the original's size, bit depth, compression and strips.
_MAIN_TAGS = {
    ExifTags.Base.DocumentName,
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    _X_RESOLUTION,
    _Y_RESOLUTION,
    _UNIT,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.HostComputer,
    ExifTags.Base.WhitePoint,
    ExifTags.Base.PrimaryChromaticities,
    ExifTags.Base.Rating,
    ExifTags.Base.RatingPercent,
    ExifTags.Base.Copyright,
    ExifTags.Base.XPTitle,
    ExifTags.Base.XPComment,
    ExifTags.Base.XPAuthor,
    ExifTags.Base.XPKeywords,
    ExifTags.Base.XPSubject,
}

# Of the EXIF directory everything but pixel coordinates, pixels per sensor length, the size of the compressed file,
# the identifier of the original, and the maker note, whose internal offsets would point nowhere.
_DROPPED_EXIF_TAGS = (
    ExifTags.Base.CompressedBitsPerPixel,
    0x9214,  # SubjectArea
    ExifTags.Base.MakerNote,
    ExifTags.Base.SpatialFrequencyResponse,
    ExifTags.Base.FocalPlaneXResolution,
    ExifTags.Base.FocalPlaneYResolution,
    ExifTags.Base.FocalPlaneResolutionUnit,
    ExifTags.Base.SubjectLocation,
    ExifTags.Base.ImageUniqueID,
)

# Tags of the first directory that a TIFF file may have, too.
_TIFF_TEXT_TAGS = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
)

# Programs for microscopy store the array's shape and the file's layout in the description.
_LAYOUT_DESCRIPTION = re.compile(
    rb'\s*(\{"|ImageJ=|SCIFIO=|(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<(\w+:)?OME\b)', re.DOTALL
)

_ASCII, _LONG, _RATIONAL, _UTF_8 = 2, 4, 5, 129
_SIZES = {1: 1, _ASCII: 1, 3: 2, _LONG: 4, _RATIONAL: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, _UTF_8: 1}
"""Bytes per value of each type."""

_POINTER_SIZES = {_LONG: 4, 13: 4, 16: 8, 18: 8}
"""Bytes of an offset of each type; the last two exist in BigTIFF only."""

# A directory of a hostile block has 65,535 entries, which all refer to the same bytes.
_MOST_ENTRIES = 2000
_DIRECTORY_LIMIT = 1 << 20  # bytes


@dataclasses.dataclass(frozen=True)
class _Values:
    # The values of a tag, in the byte order of their block.
    type: int
    data: bytes


_Directory = dict[int, _Values]


@dataclasses.dataclass
class _Block:
    order: str  # as in `struct`
    main: _Directory
    details: _Directory
    gps: _Directory
    interoperability: _Directory

    def number(self, tag: int) -> float | None:
        """Returns the first number of a tag of the main directory, or None if there is none."""
        values = self.main.get(tag)
        code = {3: "H", _LONG: "L", _RATIONAL: "LL"}.get(values.type) if values else None
        if not values or not code:
            return None
        first, *rest = struct.unpack_from(self.order + code, values.data)
        return first if not rest else first / rest[0] if rest[0] else None

    def encoded(self) -> bytes | None:
        """Returns the block as JPEG, PNG, WebP, and AVIF store it, or None if it is empty."""
        main, details = dict(self.main), dict(self.details)
        parents = {_EXIF: main, _GPS: main, _INTEROP: details}
        children = {_EXIF: details, _GPS: self.gps, _INTEROP: self.interoperability if details else {}}
        present = {tag: child for tag, child in children.items() if child}
        for tag in present:  # so that sizes are known; the values follow
            parents[tag][tag] = self._pointer(0)
        if not main:
            return None
        start = 8
        at = start + _size(main)
        for tag, child in present.items():
            parents[tag][tag] = self._pointer(at)
            at += _size(child)
        block = (b"II" if self.order == "<" else b"MM") + struct.pack(self.order + "HL", 42, start)
        for directory in (main, *present.values()):
            block += self._directory(directory, len(block))
        return b"Exif\0\0" + block

    def _pointer(self, offset: int) -> _Values:
        return _Values(_LONG, struct.pack(self.order + "L", offset))

    def _directory(self, directory: _Directory, start: int) -> bytes:
        entries, data, data_at = bytearray(), bytearray(), start + 6 + 12 * len(directory)
        for tag, values in sorted(directory.items()):
            entries += struct.pack(self.order + "HHL", tag, values.type, len(values.data) // _SIZES[values.type])
            if len(values.data) <= 4:
                entries += values.data.ljust(4, b"\0")
            else:
                entries += struct.pack(self.order + "L", data_at + len(data))
                data += values.data + b"\0" * (len(values.data) % 2)
        return bytes(struct.pack(self.order + "H", len(directory)) + entries + bytes(4) + data)


def _size(directory: _Directory) -> int:
    long = [len(values.data) for values in directory.values() if len(values.data) > 4]
    return 6 + 12 * len(directory) + sum(length + length % 2 for length in long)


def _read_directory(file: BinaryIO, order: str, big: bool, offset: int, keeps: Callable[[int], bool]) -> _Directory:
    # BigTIFF, which only TIFF files use, has wider numbers.
    count_code, entry_code = ("Q", "HHQ8s") if big else ("H", "HHL4s")
    inline = 8 if big else 4
    file.seek(offset)
    (count,) = struct.unpack(order + count_code, file.read(struct.calcsize(order + count_code)))
    size = struct.calcsize(order + entry_code)
    content = file.read(min(count, _MOST_ENTRIES) * size)
    found: _Directory = {}
    total = 0
    for at in range(0, len(content) // size * size, size):
        tag, kind, number, data = struct.unpack_from(order + entry_code, content, at)
        length = number * (_POINTER_SIZES if tag in _POINTERS else _SIZES).get(kind, 0)
        if not keeps(tag) or tag in found or total + length > _DIRECTORY_LIMIT:
            continue
        total += length
        if length > inline:
            try:
                file.seek(struct.unpack(order + ("Q" if big else "L"), data)[0])
            except (OSError, OverflowError, ValueError):  # the offset is absurd
                continue
            data = file.read(length)
        data = data[:length]
        if length and len(data) == length and not (kind in (_ASCII, _UTF_8) and not data.strip(b"\0")):
            found[tag] = _Values(kind, data)
    return found


def _read(source: bytes | BinaryIO) -> _Block | None:
    # A block, or a whole TIFF file. What is damaged is left out.
    if isinstance(source, bytes):
        source = io.BytesIO(without_prefix(source))
    source.seek(0)
    head = source.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
    try:
        (version,) = struct.unpack_from(order + "H", head, 2) if order else (0,)
        big = version == 43
        if version not in (42, 43):
            return None
        (offset,) = struct.unpack_from(order + ("Q" if big else "L"), head, 8 if big else 4)
    except struct.error:
        return None

    def directory(at: int, keeps: Callable[[int], bool]) -> _Directory:
        try:
            return _read_directory(source, order, big, at, keeps)
        except (struct.error, OSError, OverflowError, ValueError):  # the offset points outside of the file
            return {}

    def below(parent: _Directory, tag: int, keeps: Callable[[int], bool]) -> _Directory:
        pointer = parent.pop(tag, None)
        if not pointer or len(pointer.data) != _POINTER_SIZES[pointer.type]:
            return {}
        return directory(struct.unpack(order + ("L" if len(pointer.data) == 4 else "Q"), pointer.data)[0], keeps)

    main = directory(offset, lambda tag: tag in _MAIN_TAGS or tag in (_EXIF, _GPS))
    details = below(main, _EXIF, lambda tag: tag == _INTEROP or tag not in (*_DROPPED_EXIF_TAGS, *_POINTERS))
    gps = below(main, _GPS, lambda tag: tag not in _POINTERS)
    interoperability = below(details, _INTEROP, lambda tag: tag not in _POINTERS)
    return _Block(order, main, details, gps, interoperability)


def valid_exif(source: bytes | BinaryIO | None, *, turned: bool = False) -> bytes | None:
    """Selects the tags that are true of an upright, upscaled version of an image.

    Args:
      source: EXIF block of the original, with or without the `Exif` prefix that JPEG uses; or a TIFF file, whose
        position changes. Damaged tags are dropped.
      turned: whether the rows of the original are the columns of the upright image, so that its resolutions swap.

    Returns:
      An EXIF block, or None if no tag is left. Pixel sizes are still those of the original, see `resized_exif`.
    """
    block = _read(source) if source else None
    if not block:
        return None
    main = block.main
    description = main.get(ExifTags.Base.ImageDescription)
    if description and _LAYOUT_DESCRIPTION.match(description.data):
        del main[ExifTags.Base.ImageDescription]
    # A TIFF without a resolution states 1 pixel per unknown unit.
    if not (block.number(_X_RESOLUTION) and block.number(_Y_RESOLUTION) and block.number(_UNIT) in (None, 2, 3)):
        for tag in (_X_RESOLUTION, _Y_RESOLUTION, _UNIT):
            main.pop(tag, None)
    elif turned:
        main[_X_RESOLUTION], main[_Y_RESOLUTION] = main[_Y_RESOLUTION], main[_X_RESOLUTION]
    return block.encoded()


def resized_exif(block: bytes, width: int, height: int) -> bytes:
    """Returns an EXIF block whose pixel sizes, if it has any, are those given in pixels."""
    content = _read(block)
    if not content or not (_WIDTH in content.details or _HEIGHT in content.details):
        return block
    for tag, size in ((_WIDTH, width), (_HEIGHT, height)):
        content.details[tag] = _Values(_LONG, struct.pack(content.order + "L", size))
    return content.encoded() or block


def tiff_texts(block: bytes) -> dict[int, bytes]:
    """Returns the texts of an EXIF block that are also tags of TIFF files, without the zero at their end."""
    content = _read(block)
    main = content.main if content else {}
    return {tag: main[tag].data.rstrip(b"\0") for tag in _TIFF_TEXT_TAGS if tag in main and main[tag].type == _ASCII}
