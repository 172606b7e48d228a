"""Image files for training and evaluation: 8-bit RGB in, 8-bit RGB out."""

import os
import pathlib
import zipfile

import numpy as np
from PIL import Image, ImageOps

from a2f_jax.errors import UserError

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
_OPTIONS = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}


def read_rgb(path: pathlib.Path | zipfile.Path) -> np.ndarray:
    """Reads an image, upright, as its EXIF orientation has it.

    Args:
      path: a file, also one inside a zip archive. Greyscale and palette images become RGB; an alpha channel is
        left out.

    Returns:
      uint8 `[H, W, 3]`.

    Raises:
      UserError: the file is missing, no image, damaged, CMYK, of more than 8 bits, or suspiciously large.
    """
    try:
        with path.open("rb") as file, Image.open(file) as image:
            mode = image.mode
            if mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX"):
                return np.asarray(ImageOps.exif_transpose(image).convert("RGBA" if mode == "P" else "RGB"))[..., :3]
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} is too large to be believed: {error}") from error
    except OSError as error:
        if error.strerror:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        raise UserError(f"{path} is not an image or is damaged: {error}") from error
    except (ValueError, SyntaxError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not an image or is damaged: {error}") from error
    raise UserError(f"{path} is a {mode} image: convert it to 8-bit RGB first")


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
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(partial, kind, **_OPTIONS.get(kind, {}))
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
