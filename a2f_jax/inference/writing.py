"""Upscaled images into files: the formats, their limits and their options."""

import dataclasses
import itertools
import pathlib
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from a2f_jax.errors import UserError
from a2f_jax.inference.pictures import Picture
from a2f_jax.inference.png import write_png


@dataclasses.dataclass(frozen=True)
class Format:
    """What a file format can hold.

    Attributes:
      endings: of its files, the usual one first.
      largest: most pixels of a side.
      deep: whether it holds 16 bits.
      alpha: whether it holds transparency.
      in_strips: whether it is written strip by strip, and so may be larger than memory.
    """

    endings: tuple[str, ...]
    largest: int
    deep: bool = False
    alpha: bool = True
    in_strips: bool = False


FORMATS = {
    "PNG": Format((".png",), 2**31 - 1, deep=True, in_strips=True),
    "JPEG": Format((".jpg", ".jpeg"), 65500, alpha=False),
    "WEBP": Format((".webp",), 16383),
    "TIFF": Format((".tif", ".tiff"), 2**31 - 1, deep=True, in_strips=True),
    "BMP": Format((".bmp",), 2**31 - 1, alpha=False),
    "AVIF": Format((".avif",), 65536),
}


def format_of(path: pathlib.Path) -> str:
    """Returns the name of the format that a file's ending stands for.

    Raises:
      UserError: the ending is unknown.
    """
    for name, form in FORMATS.items():
        if path.suffix.lower() in form.endings:
            return name
    endings = ", ".join(ending for form in FORMATS.values() for ending in form.endings)
    raise UserError(f"cannot write {path}: the name must end in one of {endings}")


def check_format(name: str, target: str, picture: Picture, height: int, width: int) -> None:
    """Finds out before the work begins whether a result fits its format; `UserError` if not."""
    form = FORMATS[name]
    if max(height, width) > form.largest:
        raise UserError(f"{target} would be {width}×{height} pixels, {name} holds {form.largest} a side: choose PNG")
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
