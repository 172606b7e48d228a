"""Upscaled images into files: the formats, their limits and their options."""

import itertools
import os
import pathlib
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from a2f_jax.catalogue import FORMATS
from a2f_jax.errors import UserError
from a2f_jax.files import replacing
from a2f_jax.images.png import write_png
from a2f_jax.images.reading import Picture


def format_of(path: pathlib.Path) -> str:
    """Returns the name of the format that a file's ending stands for.

    Raises:
      UserError: the ending is unknown.
    """
    for name, form in FORMATS.items():
        if path.suffix.lower() in form.suffixes:
            return name
    endings = ", ".join(ending for form in FORMATS.values() for ending in form.suffixes)
    raise UserError(f"cannot write {path}: the name must end in one of {endings}")


def check_format(name: str, target: str, picture: Picture, height: int, width: int) -> None:
    """Finds out before the work begins whether a result fits its format; `UserError` if not."""
    form = FORMATS[name]
    if max(height, width) > form.max_side:
        raise UserError(f"{target} would be {width}×{height} pixels, {name} holds {form.max_side} a side: choose PNG")
    if picture.alpha is not None and not form.alpha:
        raise UserError(f"{target} cannot be transparent, as its original is: choose PNG, WebP or TIFF")


_JPEG_SEGMENT = 65_000
"""Most bytes of EXIF or XMP in a JPEG, less what announces them."""

_TEXT_TAGS = (270, 271, 272, 306, 315, 33432)
"""ImageDescription, Make, Model, DateTime, Artist, Copyright: what of EXIF is text in TIFF itself."""


def _tiff_tags(picture: Picture) -> list[tuple[int, str | int, int, str | bytes, bool]]:
    """What a TIFF carries over besides colour profile and resolution, as tifffile takes it."""
    tags: list[tuple[int, str | int, int, str | bytes, bool]] = []
    if picture.exif:
        exif = Image.Exif()
        exif.load(picture.exif)
        tags += [(tag, "s", 0, exif[tag], True) for tag in _TEXT_TAGS if isinstance(exif.get(tag), str)]
    if picture.xmp:
        tags.append((700, 1, len(picture.xmp), picture.xmp, True))
    return tags


def _write_tiff(
    file: BinaryIO, shape: tuple[int, int, int], dtype: np.dtype, strips: Iterator[Any], p: Picture
) -> None:
    import tifffile

    height, width, channels = shape
    first = next(strips)

    def encoded() -> Iterator[bytes]:
        """Strips compressed as TIFF's Deflate with differences along the rows (predictor 2)."""
        for strip in itertools.chain([first], strips):
            yield zlib.compress(np.diff(strip, axis=1, prepend=strip.dtype.type(0)).tobytes(), 6)

    with tifffile.TiffWriter(file, bigtiff=height * width * channels * dtype.itemsize > 2**31) as tiff:
        tiff.write(
            encoded(),
            shape=(height, width) if channels == 1 else shape,
            dtype=dtype,
            photometric="minisblack" if channels < 3 else "rgb",
            extrasamples=["unassalpha"] if channels in (2, 4) else None,
            planarconfig="contig" if channels > 1 else None,
            rowsperstrip=len(first),
            compression="zlib",
            predictor=True,
            iccprofile=p.icc_profile,
            resolution=p.dpi,
            resolutionunit="INCH" if p.dpi else None,
            extratags=_tiff_tags(p),
            metadata=None,
        )


def write_picture(
    file: BinaryIO,
    form: str,
    shape: tuple[int, int, int],
    dtype: np.dtype,
    strips: Iterable[np.ndarray],
    picture: Picture,
    quality: int | None = None,
) -> None:
    """Writes an upscaled image.

    Args:
      file: where to.
      form: one of `FORMATS`.
      shape: height, width and channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
      dtype: uint8, or uint16 where the format is deep.
      strips: the image from top to bottom.
      picture: the original, whose profile and metadata are carried over.
      quality: 1..100 of JPEG (95 if None), WebP (lossless if None) and AVIF (90 if None).
    """
    if form == "PNG":
        about = {key: getattr(picture, key) for key in ("icc_profile", "exif", "xmp", "dpi")}
        write_png(file, shape, dtype, strips, **about)
        return
    if form == "TIFF":
        _write_tiff(file, shape, dtype, iter(strips), picture)
        return
    options: dict[str, Any] = {
        "JPEG": {"quality": quality or 95, "subsampling": 0},
        "WEBP": {"quality": quality, "method": 4} if quality else {"lossless": True, "exact": True},
        "AVIF": {"quality": quality or 90},
        "BMP": {},
    }[form]
    about = {key: getattr(picture, key) for key in ("icc_profile", "exif", "xmp", "dpi")} if form != "BMP" else {}
    if form == "JPEG":  # each has to fit into one segment of 64 KB; the image matters more
        about |= {key: None for key in ("exif", "xmp") if len(about[key] or b"") > _JPEG_SEGMENT}
    options |= {key: value for key, value in about.items() if value}
    pixels = np.concatenate(list(strips))
    Image.fromarray(pixels[..., 0] if shape[2] == 1 else pixels).save(file, form, **options)


def write_rgb(path: str | os.PathLike[str], pixels: np.ndarray) -> None:
    """Writes an 8-bit RGB image, replacing a file of that name at once; missing folders are created.

    Args:
      path: the suffix decides the format, see `FORMATS`: JPEG has quality 95, AVIF 90, WebP is lossless.
      pixels: uint8 `[H, W, 3]`.

    Raises:
      UserError: the suffix is unknown, the format cannot hold so many pixels, or the file cannot be written.
    """
    path = pathlib.Path(path)
    form, picture = format_of(path), Picture(pixels)
    check_format(form, str(path), picture, *pixels.shape[:2])
    with replacing(path) as file:
        write_picture(file, form, pixels.shape, pixels.dtype, [pixels], picture)
