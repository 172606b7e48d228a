"""Writes images in every output format, together with the metadata of the original."""

import io
import os
import pathlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from a2f_jax.catalog import FORMATS
from a2f_jax.errors import UserError
from a2f_jax.files import as_path, replacing
from a2f_jax.images.color_spaces import hdr_name, icc_profile_of, is_gray_profile, to_srgb
from a2f_jax.images.decoding import Picture
from a2f_jax.images.exif import resized_exif, tiff_texts
from a2f_jax.images.jpeg import iptc_segment
from a2f_jax.images.png import write_png
from a2f_jax.images.xmp import resized_xmp


def format_of(path: pathlib.Path) -> str:
    """Returns the output format for a file name.

    Args:
      path: file name; only its suffix matters, in upper or lower case.

    Returns:
      A key of `FORMATS`.

    Raises:
      UserError: the suffix is not that of an output format.
    """
    for name, spec in FORMATS.items():
        if path.suffix.lower() in spec.suffixes:
            return name
    suffixes = ", ".join(suffix for spec in FORMATS.values() for suffix in spec.suffixes)
    raise UserError(f"cannot write {path}: the name must end in one of {suffixes}")


def _cicp(picture: Picture) -> bytes | None:
    return dict(picture.png_chunks).get(b"cICP")


def check_format(format_name: str, target: str, picture: Picture, height: int, width: int) -> None:
    """Checks, before any work is done, that a format can hold the result.

    Args:
      format_name: a key of `FORMATS`.
      target: name of the file to write, for messages.
      picture: the original.
      height: height of the result in pixels.
      width: width of the result in pixels.

    Raises:
      UserError: the result is too large for the format, or is transparent and the format is not; or its colors have a
        high dynamic range, which only PNG can state.
    """
    spec = FORMATS[format_name]
    if max(height, width) > spec.max_side:
        raise UserError(
            f"{target} would have {width}×{height} pixels, but {format_name} allows at most {spec.max_side} per side: "
            "use PNG"
        )
    if spec.max_bytes and 3 * height * (width + 1) > spec.max_bytes:  # rows are padded to whole words
        raise UserError(f"{target} would have {width}×{height} pixels, too many for {format_name}: use PNG")
    if picture.alpha is not None and not spec.alpha:
        raise UserError(
            f"{target}: the image is transparent, and {format_name} does not support transparency: use PNG, WebP, or "
            "TIFF"
        )
    cicp = _cicp(picture)
    if format_name != "PNG" and not picture.icc_profile and cicp and (hdr := hdr_name(cicp)):
        raise UserError(
            f"{target}: the colors of the image have a high dynamic range ({hdr}), which {format_name} would show "
            "wrongly: use PNG, or convert the image to SDR"
        )


_JPEG_SEGMENT = 65_000
"""Largest EXIF block or XMP packet in a JPEG file, in bytes: a segment of 64 KiB less its headers."""

_JPEG_DENSITY, _JPEG_DENSITIES = 13, 1 << 16
"""Where the header of JFIF, which comes first, states the density, and a bound that no density reaches."""

_TIFF_STRIP = 1 << 20
"""Approximate size of a strip of a TIFF file in bytes, before compression."""


def _extra_segments(picture: Picture) -> bytes:
    short = [comment[: 2**16 - 3] for comment in picture.comments]
    iptc = iptc_segment(picture.iptc) if picture.iptc else b""
    return iptc + b"".join(b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment for comment in short)


def _tiff_tags(exif: bytes | None, xmp: bytes | None) -> list[tuple[int, str | int, int, str | bytes, bool]]:
    # Tuples as `tifffile.TiffWriter.write(extratags=...)` takes them.
    tags: list[tuple[int, str | int, int, str | bytes, bool]] = []
    if exif:
        tags += [(tag, "s", 0, text, True) for tag, text in tiff_texts(exif).items()]
    if xmp:
        tags.append((700, 1, len(xmp), xmp, True))
    return tags


def _equal_strips(strips: Iterable[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    # All strips of a TIFF file but the last have the same height, whereas those of an image may have any.
    rest: list[np.ndarray] = []
    for strip in strips:
        rest.append(strip)
        if sum(map(len, rest)) < rows:
            continue
        joined = np.concatenate(rest)
        whole = len(joined) // rows * rows
        for top in range(0, whole, rows):
            yield joined[top : top + rows]
        rest = [joined[whole:]]
    if any(map(len, rest)):
        yield np.concatenate(rest)


def _write_tiff(
    file: BinaryIO,
    shape: tuple[int, int, int],
    dtype: np.dtype,
    strips: Iterable[np.ndarray],
    picture: Picture,
    metadata: dict[str, Any],
) -> None:
    import tifffile

    height, width, channels = shape
    rows = min(height, max(1, _TIFF_STRIP // (width * channels * dtype.itemsize)))

    def encoded() -> Iterator[bytes]:
        # tifffile takes compressed strips: Deflate of horizontal differences (predictor 2).
        for strip in _equal_strips(strips, rows):
            yield zlib.compress(np.diff(strip, axis=1, prepend=strip.dtype.type(0)).tobytes(), 6)

    with tifffile.TiffWriter(file, bigtiff=height * width * channels * dtype.itemsize > 2**31) as tiff:
        tiff.write(
            encoded(),
            shape=(height, width) if channels == 1 else shape,
            dtype=dtype,
            photometric="minisblack" if channels < 3 else "rgb",
            extrasamples=["unassalpha"] if channels in (2, 4) else None,
            planarconfig="contig" if channels > 1 else None,
            rowsperstrip=rows,
            compression="zlib",
            predictor=True,
            iccprofile=metadata["icc_profile"],
            resolution=picture.dpi or picture.aspect,
            resolutionunit="INCH" if picture.dpi else "NONE" if picture.aspect else None,
            extratags=_tiff_tags(metadata["exif"], metadata["xmp"]),
            software=False,
            metadata=None,
        )


def write_picture(
    file: BinaryIO,
    format_name: str,
    shape: tuple[int, int, int],
    dtype: np.dtype,
    strips: Iterable[np.ndarray],
    picture: Picture,
    quality: int | None = None,
) -> None:
    """Writes an image with the metadata of its original.

    PNG and TIFF are written strip by strip; the other formats need the whole image in memory.

    Args:
      file: binary file to write to. TIFF needs it to be seekable.
      format_name: a key of `FORMATS`.
      shape: height, width and channels. 1 channel is grayscale, 2 are grayscale and alpha, 3 are RGB, and 4 are RGB
        and alpha.
      dtype: uint8, or uint16 if the format is PNG or TIFF.
      strips: arrays `[h, width, channels]` of `dtype`, from top to bottom, whose heights add up to the height.
      picture: the original, whose color profile and metadata are copied.
      quality: quality 1..100 for JPEG (default 95), WebP (default: lossless) and AVIF (default 90). Other formats
        ignore it.
    """
    height, width, channels = shape
    factors = width / picture.pixels.shape[1], height / picture.pixels.shape[0]
    metadata: dict[str, Any] = {
        "icc_profile": picture.icc_profile,
        "exif": picture.exif and resized_exif(picture.exif, width, height),
        "xmp": picture.xmp and resized_xmp(picture.xmp, width, height, factors),
        "dpi": picture.dpi,
    }
    if format_name == "PNG":
        metadata |= {"aspect": picture.aspect, "comments": picture.comments, "chunks": picture.png_chunks}
        write_png(file, shape, dtype, strips, **metadata)
        return
    profile = picture.icc_profile or icc_profile_of(dict(picture.png_chunks), picture.gray)
    if format_name == "TIFF":
        _write_tiff(file, shape, dtype, strips, picture, {**metadata, "icc_profile": profile})
        return
    pixels = np.concatenate(list(strips))
    # BMP has no profiles, and the other two store gray images as RGB: AVIF with alpha, or by older versions of Pillow.
    if profile and (format_name == "BMP" or (is_gray_profile(profile) and format_name in ("WEBP", "AVIF"))):
        pixels, profile = to_srgb(pixels, profile), None
    metadata["icc_profile"] = profile
    options: dict[str, Any] = {
        "JPEG": {"quality": quality or 95, "subsampling": 0, "extra": _extra_segments(picture)},
        "WEBP": {"quality": quality, "method": 4} if quality else {"lossless": True, "exact": True},
        "AVIF": {"quality": quality or 90},
        "BMP": {},
    }[format_name]
    if format_name == "BMP":
        metadata = {"dpi": picture.dpi}
    if format_name == "JPEG":  # each must fit into one segment, or two bytes; the image matters more
        metadata |= {key: None for key in ("exif", "xmp") if len(metadata[key] or b"") > _JPEG_SEGMENT}
        if picture.dpi and round(max(picture.dpi)) >= _JPEG_DENSITIES:
            metadata["dpi"] = None
    options |= {key: value for key, value in metadata.items() if value}
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    if format_name == "JPEG" and picture.aspect and not metadata["dpi"] and max(picture.aspect) < _JPEG_DENSITIES:
        encoded = io.BytesIO()
        image.save(encoded, format_name, **options)
        encoded.seek(_JPEG_DENSITY)  # Pillow states that pixels are square
        encoded.write(struct.pack(">BHH", 0, *picture.aspect))
        file.write(encoded.getbuffer())
        return
    image.save(file, format_name, **options)


def write_rgb(path: str | os.PathLike[str], pixels: np.ndarray) -> None:
    """Writes an 8-bit RGB image. An existing file is replaced atomically, and missing folders are created.

    Args:
      path: file to write. Its suffix selects the format, one of `FORMATS`; JPEG has quality 95, AVIF has quality 90,
        and WebP is lossless.
      pixels: uint8 `[H, W, 3]`, RGB.

    Raises:
      UserError: the suffix is unknown, the image is too large for the format, or the file cannot be written.
    """
    path = as_path(path)
    format_name, picture = format_of(path), Picture(pixels)
    check_format(format_name, str(path), picture, *pixels.shape[:2])
    with replacing(path) as file:
        write_picture(file, format_name, pixels.shape, pixels.dtype, [pixels], picture)
