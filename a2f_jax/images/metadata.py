"""Selects the metadata that is still true of an upscaled image and updates its pixel sizes."""

import re
from collections.abc import Iterable
from typing import Any

from PIL import ExifTags, Image

_ORIENTATION = ExifTags.Base.Orientation
_EXIF, _GPS, _INTEROP = ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop
_WIDTH, _HEIGHT = ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight

RESOLUTION_TAGS = (ExifTags.Base.XResolution, ExifTags.Base.YResolution, ExifTags.Base.ResolutionUnit)
_CENTIMETER = 3  # value of ResolutionUnit

# Of the first directory only what describes the subject, the author and the device. The rest describes how a file is
# stored: in an EXIF block made from a TIFF that is the original's size, bit depth, compression and strips.
_MAIN_TAGS = (
    ExifTags.Base.DocumentName,
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    *RESOLUTION_TAGS,
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
)

# Of the EXIF directory everything but pixel coordinates, pixels per sensor length, the size of the compressed file,
# the identifier of the original, and the maker note, whose internal offsets would point nowhere.
_DROPPED_EXIF_TAGS = {
    ExifTags.Base.CompressedBitsPerPixel,
    0x9214,  # SubjectArea
    ExifTags.Base.MakerNote,
    ExifTags.Base.SpatialFrequencyResponse,
    ExifTags.Base.FocalPlaneXResolution,
    ExifTags.Base.FocalPlaneYResolution,
    ExifTags.Base.FocalPlaneResolutionUnit,
    ExifTags.Base.SubjectLocation,
    ExifTags.Base.ImageUniqueID,
}

# Programs for microscopy store the array's shape and the file's layout in the description.
_LAYOUT_DESCRIPTION = re.compile(r'\s*(\{"|ImageJ=|SCIFIO=|(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<(\w+:)?OME\b)', re.DOTALL)


def read_exif(block: bytes) -> Image.Exif:
    """Parses an EXIF block.

    Args:
      block: TIFF structure, with or without the `Exif` prefix that JPEG uses.

    Returns:
      The tags, or none if the block is damaged.
    """
    exif = Image.Exif()
    try:
        exif.load(block)
    except Exception:  # Pillow raises many kinds of exceptions for malformed blocks
        return Image.Exif()
    return exif


def orientation_of(exif: Image.Exif, xmp: Any = None) -> int:
    """Returns the orientation of an image, 1..8; 1 (upright) if it is missing or invalid.

    Args:
      exif: the EXIF tags, which take precedence.
      xmp: the XMP packet, or None.
    """
    value = _value(exif, _ORIENTATION)
    if value is None and isinstance(xmp, bytes) and (match := _XMP_ORIENTATION.search(xmp)):
        digits = match[0].removeprefix(match[1])
        value = int(digits) if len(digits) == 1 else None
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def valid_exif(exif: Image.Exif) -> bytes | None:
    """Encodes the tags that are true of an upright, upscaled version of an image.

    Args:
      exif: tags of the original. Those that cannot be read are dropped.

    Returns:
      An EXIF block, or None if no tag is left. Pixel sizes are still those of the original, see `resized_exif`.
    """
    tags = {tag: _value(exif, tag) for tag in _MAIN_TAGS}
    if isinstance(text := tags[ExifTags.Base.ImageDescription], str) and _LAYOUT_DESCRIPTION.match(text):
        del tags[ExifTags.Base.ImageDescription]
    main = _encodable(tags.items())
    if not resolution_of(main):  # a TIFF without a resolution states 1 pixel per unknown unit
        main = {tag: value for tag, value in main.items() if tag not in RESOLUTION_TAGS}
    details = _directory(exif, _EXIF)
    details = {tag: value for tag, value in details.items() if tag not in _DROPPED_EXIF_TAGS}
    if details and (interoperability := _directory(exif, _INTEROP)):
        details[_INTEROP] = interoperability
    main |= {tag: values for tag, values in ((_EXIF, details), (_GPS, _directory(exif, _GPS))) if values}
    try:
        return _encoded(main) if main else None
    except Exception:
        return None


def resized_exif(block: bytes, width: int, height: int) -> bytes:
    """Returns an EXIF block whose pixel sizes, if it has any, are those given in pixels."""
    exif = read_exif(block)
    details = _directory(exif, _EXIF)
    if _WIDTH not in details and _HEIGHT not in details:
        return block
    exif.get_ifd(_EXIF).update({_WIDTH: width, _HEIGHT: height})
    return exif.tobytes()


def _value(exif: Image.Exif, tag: int) -> Any:
    try:
        return exif.get(tag)
    except Exception:
        return None


def _directory(exif: Image.Exif, tag: int) -> dict[int, Any]:
    try:
        values = dict(exif.get_ifd(tag))
    except Exception:
        return {}
    path = (_EXIF, _INTEROP) if tag == _INTEROP else (tag,)
    return _encodable(((key, value) for key, value in values.items() if key != _INTEROP), *path)


def _encodable(tags: Iterable[tuple[int, Any]], *path: int) -> dict[int, Any]:
    # A damaged value may have a type that its tag does not allow in its directory. Only encoding it shows that.
    kept = {}
    for tag, value in tags:
        if value is not None and not (isinstance(value, str | bytes) and not value):
            nested = {tag: value}
            for directory in reversed(path):
                nested = {directory: nested}
            try:
                _encoded(nested)
            except Exception:
                continue
            kept[tag] = value
    return kept


def _encoded(tags: dict[int, Any]) -> bytes:
    exif = Image.Exif()
    for tag, value in tags.items():
        exif[tag] = value
    return exif.tobytes()


def resolution_of(tags: dict[int, Any] | Image.Exif) -> tuple[float, float] | None:
    """Returns the horizontal and vertical resolution in dots per inch that TIFF or EXIF tags state, or None."""
    x, y, unit = (tags.get(tag) for tag in RESOLUTION_TAGS)
    if unit not in (None, 2, _CENTIMETER):
        return None
    return valid_dpi(x, y, 2.54 if unit == _CENTIMETER else 1)


def valid_dpi(x: Any, y: Any, factor: float = 1) -> tuple[float, float] | None:
    """Returns a resolution in dots per inch, or None if it is missing or absurd.

    Args:
      x: horizontal number of dots per unit.
      y: vertical number of dots per unit.
      factor: units per inch.
    """
    try:
        dpi = float(x) * factor, float(y) * factor
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return dpi if all(0 < d < 1e6 for d in dpi) else None


def _xmp_property(*names: str) -> re.Pattern[bytes]:
    """Matches a number in an attribute or an element of an XMP packet; the first group precedes the number."""
    return re.compile(rf"((?:{'|'.join(names)})(?:\s*=\s*[\"']|\s*>)\s*)\d+".encode())


_XMP_ORIENTATION = _xmp_property("tiff:Orientation")
_XMP_WIDTH = _xmp_property("tiff:ImageWidth", "exif:PixelXDimension")
_XMP_HEIGHT = _xmp_property("tiff:ImageLength", "exif:PixelYDimension")
# Phones append gain maps and videos to a JPEG and describe them in XMP. Upscaled images do not contain them.
_XMP_OF_APPENDED_FILES = re.compile(rb"http://ns\.google\.com/photos/1\.0/(container|camera)/|hdr-gain-map")


def valid_xmp(packet: Any) -> bytes | None:
    """Returns an XMP packet with an upright orientation, or None if it describes files appended to the original."""
    if not isinstance(packet, bytes) or not packet or _XMP_OF_APPENDED_FILES.search(packet):
        return None
    return _XMP_ORIENTATION.sub(rb"\g<1>1", packet)


def resized_xmp(packet: bytes, width: int, height: int) -> bytes:
    """Returns an XMP packet whose pixel sizes, if it has any, are those given in pixels."""
    packet = _XMP_WIDTH.sub(rb"\g<1>%d" % width, packet)
    return _XMP_HEIGHT.sub(rb"\g<1>%d" % height, packet)
