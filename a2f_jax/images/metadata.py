"""Reads the metadata that determines how an image is shown: its orientation and its resolution."""

import fractions
import re
from typing import Any

from PIL import ExifTags, Image

from a2f_jax.images.xmp import ORIENTATION

_ORIENTATION = ExifTags.Base.Orientation

RESOLUTION_TAGS = (ExifTags.Base.XResolution, ExifTags.Base.YResolution, ExifTags.Base.ResolutionUnit)
_NO_UNIT, _CENTIMETER = 1, 3  # values of ResolutionUnit

_PREFIX = re.compile(rb"(?:Exif\0\0)*")


def without_prefix(block: bytes) -> bytes:
    """Returns an EXIF block without the prefix that JPEG uses, which some programs write several times."""
    return block[_PREFIX.match(block).end() :]  # type: ignore[union-attr]


def read_exif(block: bytes) -> Image.Exif:
    """Parses an EXIF block.

    Args:
      block: TIFF structure, with or without the `Exif` prefix that JPEG uses.

    Returns:
      The tags, or none if the block is damaged.
    """
    exif = Image.Exif()
    try:
        exif.load(without_prefix(block))
    except Exception:  # Pillow raises many kinds of exceptions for malformed blocks
        return Image.Exif()
    return exif


def orientation_of(exif: Image.Exif | dict[int, Any], xmp: Any = None) -> int:
    """Returns the orientation of an image, 1..8; 1 (upright) if it is missing or invalid.

    Args:
      exif: the EXIF tags, which take precedence.
      xmp: the XMP packet, or None.
    """
    value = _value(exif, _ORIENTATION)
    if value is None and isinstance(xmp, bytes) and (match := ORIENTATION.search(xmp)):
        value = int(match[2])
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _value(exif: Image.Exif | dict[int, Any], tag: int) -> Any:
    try:
        return exif.get(tag)
    except Exception:
        return None


def resolution_of(tags: dict[int, Any] | Image.Exif) -> tuple[float, float] | None:
    """Returns the horizontal and vertical resolution in dots per inch that TIFF or EXIF tags state, or None."""
    x, y, unit = (tags.get(tag) for tag in RESOLUTION_TAGS)
    if unit not in (None, 2, _CENTIMETER):
        return None
    return valid_dpi(x, y, 2.54 if unit == _CENTIMETER else 1)


def aspect_of(tags: dict[int, Any] | Image.Exif) -> tuple[int, int] | None:
    """Returns pixels per unknown unit, horizontally and vertically, if TIFF tags state that they differ."""
    x, y, unit = (tags.get(tag) for tag in RESOLUTION_TAGS)
    valid = valid_dpi(x, y) if unit == _NO_UNIT else None
    if not valid or valid[0] == valid[1]:
        return None
    ratio = fractions.Fraction(valid[0] / valid[1]).limit_denominator(1000)
    return (ratio.numerator, ratio.denominator) if 0 < ratio.numerator < 1 << 16 else None


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
