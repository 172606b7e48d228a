"""Image files for training and evaluation: 8-bit RGB in, 8-bit RGB out."""

import os
import pathlib
import zipfile
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE

from a2f_jax.errors import UserError
from a2f_jax.files import replacing

READABLE = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
"""Endings of the image files that are looked for in folders."""

_WRITABLE = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
_OPTIONS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}


def _bits(image: Image.Image) -> int:
    """Bits of a channel in the file; Pillow drops the lower half of 16-bit colours without a word."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(BITSPERSAMPLE, (8,)))  # type: ignore[attr-defined]
    return 16 if image.format == "PNG" and ";16" in str(image.tile) else 8  # type: ignore[attr-defined]


def read_rgb(path: str | os.PathLike[str] | zipfile.Path) -> np.ndarray:
    """Reads an image, upright, as its EXIF orientation has it.

    Args:
      path: a file, also one inside a zip archive. Greyscale, palette and YCbCr images become RGB; an alpha channel
        is left out.

    Returns:
      uint8 `[H, W, 3]`.

    Raises:
      UserError: the file is missing, no image, damaged, CMYK, of more than 8 bits, or suspiciously large.
    """
    opened = path if isinstance(path, zipfile.Path) else pathlib.Path(path)
    try:
        with opened.open("rb") as file, Image.open(file) as image:
            if _bits(image) > 8 or image.mode.startswith("I;16"):
                raise UserError(f"{path} has 16 bits a channel: convert it to 8-bit RGB first")
            if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr"):
                raise UserError(f"{path} is a {image.mode} image: convert it to 8-bit RGB first")
            upright = ImageOps.exif_transpose(image)
            # Pillow wants a palette with transparency to become RGBA first.
            return np.asarray((upright.convert("RGBA") if upright.mode == "P" else upright).convert("RGB"))
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} is too large to be believed: {error}") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not an image or is damaged: replace it") from error
    except Exception as error:  # decoders raise errors of all kinds at damaged files
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        raise UserError(f"{path} is not an image or is damaged: {error}") from error


def write_image(path: str | os.PathLike[str], pixels: np.ndarray) -> None:
    """Writes an image, replacing a file of that name at once; folders are made where they do not exist.

    Args:
      path: the ending decides the format: PNG, JPEG (quality 95), WebP (lossless), TIFF, BMP.
      pixels: uint8 `[H, W, 3]`.

    Raises:
      UserError: the ending is unknown, or the file cannot be written.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() not in _WRITABLE:
        raise UserError(f"cannot write {path}: the name must end in one of {', '.join(_WRITABLE)}")
    kind = _WRITABLE[path.suffix.lower()]
    try:
        with replacing(path) as file:
            Image.fromarray(pixels).save(file, kind, **_OPTIONS.get(kind, {}))
    except ValueError as error:  # more pixels a side than the format allows
        raise UserError(f"cannot write {path}: {error}") from error
