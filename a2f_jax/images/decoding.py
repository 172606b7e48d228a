"""Decodes image files: a function for each format, and what they have in common."""

import dataclasses
import functools
import importlib
import re
import sys
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from a2f_jax.catalog import PLUGINS
from a2f_jax.errors import UserError
from a2f_jax.images.color_spaces import pil_to_srgb, read_cicp
from a2f_jax.images.exif import valid_exif
from a2f_jax.images.jpeg import scan_jpeg
from a2f_jax.images.jpeg_quality import estimate_quality
from a2f_jax.images.limits import check_size
from a2f_jax.images.metadata import (
    RESOLUTION_TAGS,
    aspect_of,
    orientation_of,
    read_exif,
    resolution_of,
    valid_dpi,
)
from a2f_jax.images.png import Chunk, scan_png
from a2f_jax.images.signatures import HEAD_SIZE, readable_formats, recognize, remedy
from a2f_jax.images.tiff import NEW_SUBFILE_TYPE, REDUCED, read_tiff
from a2f_jax.images.xmp import valid_xmp

_DEEP_RAW_MODE = re.compile("RGB[AX]?;16[BLN]")
_8_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr")

# TIFF tags
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR, _SUB_IFDS, _SAMPLE_FORMAT, _DNG_VERSION = 258, 262, 284, 330, 339, 50706
_XMP, _ICC_PROFILE = 700, 34675
_WHITE_IS_ZERO = 0
_SIGNED = 2  # of the sample formats

_TURNING = (5, 6, 7, 8)
"""The orientations that swap rows and columns."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A decoded image, rotated upright, with its metadata.

    Attributes:
      pixels: uint8 or uint16 `[H, W, 3]`, RGB.
      alpha: opacity, `[H, W]` of the same dtype as `pixels`, or None if every pixel is opaque.
      gray: whether the file is grayscale. The three channels of `pixels` are then equal.
      format: Pillow's name for the format of the file, such as "PNG".
      icc_profile: ICC color profile, or None.
      exif: EXIF block with the tags that stay true when the image is upscaled, but for its pixel sizes, or None.
      xmp: XMP packet, whose orientation is set to upright, or None.
      iptc: IPTC record of a JPEG file, or None.
      dpi: horizontal and vertical resolution in dots per inch, or None.
      aspect: pixels per unknown unit, horizontally and vertically, or None.
      comments: comments of a JPEG or GIF file.
      jpeg_quality: estimated quality of a JPEG file, 1..100, or None for other formats.
      png_chunks: what PNG has chunks for, as pairs of type and data: the color space and the texts of a PNG file, and
        the color space of an AVIF or HEIC file without a profile.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    gray: bool = False
    format: str = "PNG"
    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    aspect: tuple[int, int] | None = None
    comments: tuple[bytes, ...] = ()
    jpeg_quality: int | None = None
    png_chunks: tuple[Chunk, ...] = ()


@dataclasses.dataclass
class _Decoded:
    """Samples `[H, W, 1..4]` and raw metadata of a file, whose EXIF is a block, or the whole file if it is a TIFF."""

    samples: np.ndarray
    orientation: int  # that is still to be applied
    applied: int = 1  # the orientation that the decoder has applied
    icc_profile: bytes | None = None
    exif: bytes | BinaryIO | None = None
    xmp: Any = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    aspect: tuple[int, int] | None = None
    comments: tuple[bytes, ...] = ()
    jpeg_quality: int | None = None
    png_chunks: tuple[Chunk, ...] = ()


@functools.cache
def _register_decoders() -> None:
    # `Image.open(formats=...)` knows only decoders that are registered.
    Image.init()
    for plugin in PLUGINS:
        if plugin.installed:
            module = importlib.import_module(plugin.module)
            if plugin.format == "HEIF":
                module.register_heif_opener()


def open_image(file: BinaryIO, format_name: str) -> ImageFile.ImageFile:
    """Opens an image by the one decoder of a format, so that no other one sees the file."""
    _register_decoders()
    return Image.open(file, formats=[format_name])


def frames_of_tiff(file: BinaryIO) -> int:
    """Returns how many images a TIFF file has; thumbnails and overviews that follow the first one do not count."""
    count = 1
    with open_image(file, "TIFF") as image:  # not the one to decode, which would keep the color profile of another
        for frame in range(1, image.n_frames):  # type: ignore[attr-defined]
            try:
                image.seek(frame)
                count += not image.tag_v2.get(NEW_SUBFILE_TYPE, 0) & REDUCED  # type: ignore[attr-defined]
            except Exception:  # Pillow cannot read this one
                count += 1
    return count


def _deep_colors(image: ImageFile.ImageFile, file: BinaryIO) -> np.ndarray:
    # Pillow keeps only the upper 8 bits of a 16-bit color. Its decoders take the byte order from the raw mode of the
    # tile, so decoding once in each order yields the upper and the lower bytes.
    swapped = str.maketrans("BLN", "LBB" if sys.byteorder == "little" else "LBL")

    def other_order(args: Any) -> Any:
        first, *rest = [args] if isinstance(args, str) else args
        mode, order = first.split(";16")
        first = f"{mode};16{order.translate(swapped)}"
        return first if isinstance(args, str) else (first, *rest)

    format_name = str(image.format)
    upper = np.asarray(image).astype(np.uint16)
    with open_image(file, format_name) as again:
        again.tile = [tile._replace(args=other_order(tile.args)) for tile in again.tile]
        return upper << 8 | np.asarray(again)


def _to_srgb(image: Image.Image, name: str) -> np.ndarray:
    profile = image.info.get("icc_profile")
    if not profile:
        raise UserError(f"{name} is a CMYK image without a color profile: convert it to RGB first")
    try:
        return pil_to_srgb(image, profile)
    except ValueError as error:
        space = profile[16:20].decode("ascii", "replace").strip()
        problem = "is damaged" if space == "CMYK" else f"is for {space} colors"
        raise UserError(f"{name} is a CMYK image whose color profile {problem}: convert it to RGB first") from error


def _turn(array: np.ndarray, orientation: int) -> np.ndarray:
    if orientation in _TURNING:
        array = array.swapaxes(0, 1)
    flip_rows, flip_columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return array[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def _decode_png(file: BinaryIO, name: str, limit: int) -> _Decoded:
    png = scan_png(file)
    with open_image(png.stream, "PNG") as image:
        check_size(name, *image.size, limit, png.frames)
        raw_mode = str(image.tile[0].args)
        if raw_mode == "LA;16B":  # decoded as 4 bytes per pixel, these are the two samples
            image.tile = [image.tile[0]._replace(args="RGBA")]
            samples = np.asarray(image).view(">u2").astype(np.uint16)
        elif raw_mode in ("RGB;16B", "RGBA;16B"):
            samples = _deep_colors(image, png.stream)
        elif image.mode == "I;16":
            samples = np.asarray(image).astype(np.uint16)[..., None]
        else:
            samples = samples_8_bit(image)
    if png.transparent_color:
        unit = 1 if png.depth == 16 else 255 // ((1 << png.depth) - 1)
        key = np.array(png.transparent_color, np.uint16) * unit
        highest = np.iinfo(samples.dtype).max
        alpha = np.where((samples == key).all(-1, keepdims=True), samples.dtype.type(0), samples.dtype.type(highest))
        samples = np.concatenate([samples, alpha], -1)
    return _Decoded(
        samples=samples,
        orientation=orientation_of(read_exif(png.exif or b""), png.xmp),
        icc_profile=png.icc_profile,
        exif=png.exif,
        xmp=png.xmp,
        dpi=png.dpi,
        aspect=png.aspect,
        png_chunks=png.chunks,
    )


def samples_8_bit(image: Image.Image) -> np.ndarray:
    """Returns the samples of an 8-bit image: uint8 `[H, W, 1..4]`, gray or RGB; of 2 or 4, the last is alpha."""
    gray, transparent = image.mode in ("1", "L", "LA", "La"), image.has_transparency_data
    mode = ("LA" if transparent else "L") if gray else ("RGBA" if transparent else "RGB")
    return np.asarray(image.convert(mode)).reshape(image.height, image.width, -1)


def _decode_jpeg(file: BinaryIO, name: str, limit: int) -> _Decoded:
    jpeg = scan_jpeg(file)
    if jpeg.kind:
        raise UserError(f"{name} is {jpeg.kind}, which is not supported: convert it to PNG")
    with open_image(jpeg.stream, "JPEG") as image:
        check_size(name, *image.size, limit, 1)  # further frames are previews and gain maps of phones
        quality = _quality_of(image)
        if image.mode == "CMYK":
            image.info["icc_profile"] = jpeg.icc_profile
            samples, profile = _to_srgb(image, name), None
        else:
            samples, profile = samples_8_bit(image), jpeg.icc_profile
    return _Decoded(
        samples=samples,
        orientation=orientation_of(read_exif(jpeg.exif or b""), jpeg.xmp),
        icc_profile=profile,
        exif=jpeg.exif,
        xmp=jpeg.xmp,
        iptc=jpeg.iptc,
        dpi=jpeg.dpi,
        aspect=jpeg.aspect,
        comments=jpeg.comments,
        jpeg_quality=quality,
    )


def _quality_of(image: ImageFile.ImageFile) -> int | None:
    # The first component is luma, or what comes closest in a file of other colors. Pillow has undone the zigzag order.
    table = image.quantization.get(image.layer[0][3])  # type: ignore[attr-defined]
    return estimate_quality(table) if table else None


def _decode_tiff(file: BinaryIO, name: str, limit: int) -> _Decoded:
    try:
        image = open_image(file, "TIFF")
    except UnidentifiedImageError:
        return _decode_unusual_tiff(file, name, limit)
    with image:
        tags = image.tag_v2  # type: ignore[attr-defined]
        reduced = tags.get(NEW_SUBFILE_TYPE, 0) == REDUCED and _SUB_IFDS in tags
        if _DNG_VERSION in tags or reduced:  # the first image is a preview of the raw data
            raise UserError(f"{name} is {remedy('camera raw')}")
        check_size(name, *image.size, limit, frames_of_tiff(file))
        bits = (tags.get(_BITS_PER_SAMPLE) or (1,))[0]
        orientation = tags.get(ExifTags.Base.Orientation, 1)  # Pillow drops the tag when it decodes the pixels
        raw_modes = [str(tile.args if isinstance(tile.args, str) else (tile.args or [None])[0]) for tile in image.tile]
        profile = image.info.get("icc_profile")
        if _SIGNED in (tags.get(_SAMPLE_FORMAT) or ()):  # Pillow takes some of them for unsigned
            return _decode_unusual_tiff(file, name, limit)
        if image.mode == "CMYK":
            samples, profile = _to_srgb(image, name), None
        elif image.mode.startswith("I;16") and "S" not in image.mode and bits in (12, 16):
            samples = np.asarray(image).astype(np.uint16)[..., None]
            if bits == 12:
                samples = samples << 4 | samples >> 8
            if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts 8-bit samples only
                samples = 65535 - samples
        elif tags.get(_PLANAR, 1) == 1 and raw_modes and all(_DEEP_RAW_MODE.fullmatch(mode) for mode in raw_modes):
            samples = _deep_colors(image, file)
        elif bits <= 8 and image.mode in _8_BIT_MODES:
            samples = samples_8_bit(image)
        else:
            return _decode_unusual_tiff(file, name, limit)
        return _Decoded(
            samples=samples,
            orientation=orientation_of(image.getexif()),  # Pillow has already applied that of the file
            applied=orientation,
            icc_profile=profile,
            exif=file,
            xmp=image.info.get("xmp"),
            dpi=resolution_of(tags),
            aspect=aspect_of(tags),
        )


def _decode_unusual_tiff(file: BinaryIO, name: str, limit: int) -> _Decoded:
    file.seek(0)
    samples, tags = read_tiff(file, name, limit)
    tags |= {tag: _number(tags.get(tag)) for tag in RESOLUTION_TAGS}
    return _Decoded(
        samples=samples,
        orientation=orientation_of(tags, tags.get(_XMP)),
        icc_profile=tags.get(_ICC_PROFILE),
        exif=file,
        xmp=tags.get(_XMP),
        dpi=resolution_of(tags),
        aspect=aspect_of(tags),
    )


def _number(value: Any) -> Any:
    # tifffile gives a fraction as numerator and denominator.
    return value[0] / value[1] if isinstance(value, tuple) and len(value) == 2 and value[1] else value


def _decode_other(file: BinaryIO, format_name: str, name: str, limit: int) -> _Decoded:
    with open_image(file, format_name) as image:
        check_size(name, *image.size, limit, getattr(image, "n_frames", 1))
        if image.mode not in _8_BIT_MODES:
            raise UserError(f"{name} is an image of mode {image.mode}, which is not supported: convert it to RGB")
        samples, info = samples_8_bit(image), image.info
    exif, comment = info.get("exif"), info.get("comment")
    stated = orientation_of(read_exif(exif or b""), info.get("xmp") if format_name == "WEBP" else None)
    cicp = read_cicp(file) if format_name in ("AVIF", "HEIF") and not info.get("icc_profile") else None
    return _Decoded(
        samples=samples,
        # The decoder of JPEG XL applies the orientation of the codestream, which takes precedence over EXIF. Pillow
        # states that of AVIF as EXIF; the metadata in the file do not count.
        orientation=1 if format_name == "JXL" else stated,
        applied=stated if format_name == "JXL" else 1,
        icc_profile=info.get("icc_profile"),
        exif=exif,
        xmp=info.get("xmp"),
        dpi=valid_dpi(*info.get("dpi", (None, None))),
        comments=(comment,) if isinstance(comment, bytes) else (),
        png_chunks=((b"cICP", cicp),) if cicp else (),
    )


def decode(file: BinaryIO, name: str, limit: int) -> Picture:
    """Decodes an image of any supported format, which is recognized by its content.

    Args:
      file: the file, which can be read from its current position and sought.
      name: name of the image, for messages.
      limit: largest number of pixels that the image may declare.

    Raises:
      UserError: the image is too large, or of a kind that is not supported.
      Exception: whatever the decoder of the format raises for a damaged file.
    """
    head = file.read(HEAD_SIZE)
    file.seek(0)
    format_name = recognize(head)
    if format_name and format_name not in readable_formats():
        raise UserError(f"{name} is {remedy(format_name)}")
    match format_name:
        case None:
            known = ", ".join(readable_formats())
            raise ValueError(f"its format is none of {known}" if head else "it is empty")
        case "PNG":
            decoded = _decode_png(file, name, limit)
        case "JPEG":
            decoded = _decode_jpeg(file, name, limit)
        case "TIFF":
            decoded = _decode_tiff(file, name, limit)
        case _:
            decoded = _decode_other(file, format_name, name, limit)
    samples, alpha = decoded.samples, None
    if samples.shape[-1] in (2, 4):
        samples, alpha = samples[..., :-1], samples[..., -1]
        if np.min(alpha) == np.iinfo(alpha.dtype).max:
            alpha = None
    orientations = decoded.applied, decoded.orientation
    turned = any(orientation in _TURNING for orientation in orientations)
    return Picture(
        pixels=_turn(np.broadcast_to(samples, (*samples.shape[:2], 3)), decoded.orientation),
        alpha=None if alpha is None else _turn(alpha, decoded.orientation),
        gray=samples.shape[-1] == 1,
        format=format_name,
        icc_profile=decoded.icc_profile or None,
        exif=valid_exif(decoded.exif, turned=turned),
        xmp=valid_xmp(decoded.xmp, moved=orientations != (1, 1)),
        iptc=decoded.iptc,
        dpi=_swapped(decoded.dpi) if turned else decoded.dpi,
        aspect=_swapped(decoded.aspect) if turned else decoded.aspect,
        comments=decoded.comments,
        jpeg_quality=decoded.jpeg_quality,
        png_chunks=decoded.png_chunks,
    )


def _swapped(pair: Any) -> Any:
    return pair and pair[::-1]
