"""Reads image files into pixels and the metadata that their upscaled versions keep."""

import io
import os
import pathlib
import threading
import zipfile
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from a2f_jax.errors import UserError
from a2f_jax.files import check_regular
from a2f_jax.images.decoding import Picture, decode, frames_of_tiff, open_image
from a2f_jax.images.limits import PIXEL_LIMIT, check_size
from a2f_jax.images.metadata import orientation_of, read_exif
from a2f_jax.images.signatures import HEAD_SIZE, recognize


class _WithoutPillowLimit:
    # Pillow's own pixel limit is a setting of the process. While any thread reads an image, `check_size` replaces it.

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._limit: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._readers:
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._readers += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._readers -= 1
            if not self._readers:
                Image.MAX_IMAGE_PIXELS = self._limit


without_pillow_limit = _WithoutPillowLimit()
"""A context without Pillow's own pixel limit."""


def read_picture(
    source: str | os.PathLike[str] | zipfile.Path | bytes, limit: int = PIXEL_LIMIT, *, name: str | None = None
) -> Picture:
    """Reads an image file.

    Args:
      source: path of the file, a file inside a zip archive, or the content of a file.
      limit: largest number of pixels that the image may declare. The size is checked before anything is decoded.
      name: name of the image in errors. None: the path, or "standard input" for the content of a file.

    Returns:
      The image, rotated upright. CMYK is converted to sRGB with the embedded profile.

    Raises:
      UserError: the file cannot be read, is not an image of a supported format, or is damaged; or the image has more
        than `limit` pixels, several frames, CMYK colors without a profile, or samples that are not supported.
    """
    name = name or _name_of(source)
    try:
        with without_pillow_limit, _open(source) as file:
            return decode(file, name, limit)
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"{name} does not fit in memory: use a smaller image") from error
    except Exception as error:  # decoders raise many kinds of exceptions for damaged files
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"cannot read {name}: {error.strerror}") from error
        raise UserError(f"{name} is not an image or is damaged: {_reason(error)}") from error


def _name_of(source: Any) -> str:
    return "standard input" if isinstance(source, bytes) else str(source)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, UnidentifiedImageError):
        return "its header cannot be decoded"
    # The text of other exceptions, such as a KeyError, says nothing about the file.
    described = text and isinstance(error, OSError | ValueError | SyntaxError | RuntimeError)
    return text if described else "its content is inconsistent"


def _open(source: str | os.PathLike[str] | zipfile.Path | bytes) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, zipfile.Path):
        return source.open("rb")  # type: ignore[return-value]
    check_regular(source)
    return pathlib.Path(source).open("rb")


def _frames(image: Image.Image, file: BinaryIO) -> int:
    if isinstance(image, TiffImageFile):
        return frames_of_tiff(file)
    return 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)


def _orientation(image: Image.Image, format_name: str) -> int:
    # That which is not yet applied to `image.size`, as `decode` applies it.
    if format_name == "JXL":
        return 1
    if isinstance(image, TiffImageFile):  # Pillow applies that of the tag
        return 1 if ExifTags.Base.Orientation in image.tag_v2 else orientation_of(image.getexif())
    if format_name == "PNG" and "exif" not in image.info:
        image.load()  # metadata may follow the pixels
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    exif = read_exif(image.info.get("exif") or b"")
    return orientation_of(exif, xmp if format_name in ("JPEG", "PNG", "WEBP") else None)


def read_size(
    source: str | os.PathLike[str] | bytes,
    limit: int = PIXEL_LIMIT,
    *,
    upright: bool = True,
    name: str | None = None,
) -> tuple[str, int, int]:
    """Reads the format and the size of an image, without decoding its pixels where the format allows it.

    Args:
      source: path of the file, or the content of a file.
      limit: largest number of pixels that the image may declare.
      upright: whether to apply the orientation in the EXIF metadata. In a PNG it may come after the pixels, which are
        decoded to find it.
      name: name of the image in errors. None: the path, or "standard input" for the content of a file.

    Returns:
      Pillow's name for the format, and the height and the width in pixels.

    Raises:
      UserError: `read_picture` cannot read the image.
    """
    try:
        with without_pillow_limit, _open(source) as file:
            format_name = recognize(file.read(HEAD_SIZE))
            file.seek(0)
            with open_image(file, str(format_name)) as image:
                check_size(name or _name_of(source), *image.size, limit, _frames(image, file))
                width, height = image.size
                if upright and _orientation(image, str(format_name)) in (5, 6, 7, 8):
                    width, height = height, width
                return str(format_name), height, width
    except Exception:  # let `read_picture` report the error, or read the file in another way
        picture = read_picture(source, limit, name=name)
        return picture.format, *picture.pixels.shape[:2]


def read_rgb(source: str | os.PathLike[str] | zipfile.Path) -> np.ndarray:
    """Reads the colors of an 8-bit image, for training or evaluation. Transparency is dropped.

    Args:
      source: path of the file, or a file inside a zip archive.

    Returns:
      uint8 `[H, W, 3]`, RGB, rotated upright.

    Raises:
      UserError: the file is not an image that `read_picture` reads, or it has 16 bits per channel.
    """
    try:
        picture = read_picture(source)
    except UserError as error:
        if error.parameter != "pixel_limit":
            raise
        # Neither training nor evaluation has a parameter for the limit.
        raise UserError(f"{source} has more than {PIXEL_LIMIT} pixels: crop it, or reduce its size") from error
    if picture.pixels.dtype != np.uint8:
        raise UserError(f"{source} has 16 bits per channel: convert it to 8-bit RGB")
    return np.ascontiguousarray(picture.pixels)
