"""Reads image files into pixels and the metadata that their upscaled versions keep."""

import dataclasses
import io
import os
import pathlib
import re
import sys
import zipfile
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from a2f_jax.errors import UserError

PIXEL_LIMIT = 200_000_000
"""Largest number of pixels that an image may declare. A few bytes can declare billions, which would exhaust memory."""

_ORIENTATION = 0x0112
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>))[1-8]")
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # TIFF tag and its value

_8_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr")


@dataclasses.dataclass(frozen=True)
class Picture:
    """A decoded image, rotated upright, with its metadata.

    Attributes:
      pixels: uint8 or uint16 `[H, W, 3]`, RGB.
      alpha: Opacity, `[H, W]` of the same dtype as `pixels`, or None if every pixel is opaque.
      grey: Whether the file is grayscale. The three channels of `pixels` are then equal.
      format: Pillow's name for the format of the file, such as "PNG".
      icc_profile: ICC color profile, or None.
      exif: EXIF block without the orientation, which has been applied to the pixels, or None.
      xmp: XMP packet, whose orientation is set to upright, or None.
      dpi: Horizontal and vertical resolution in dots per inch, or None.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    format: str = "PNG"
    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None


def _deep_colors(image: ImageFile.ImageFile, file: BinaryIO, name: str) -> np.ndarray:
    # Pillow keeps only the upper 8 bits of a 16-bit color. Its decoders take the byte order from the raw mode of the
    # tile, so decoding once in each order yields the upper and the lower bytes.
    if any(";16" not in str(tile.args) or "LA" in str(tile.args) for tile in image.tile):
        raise UserError(f"{name} has 16 bits per channel in an unsupported layout: convert it to a 16-bit RGB PNG")
    swapped = str.maketrans("BLN", "LBB" if sys.byteorder == "little" else "LBL")

    def other_order(args: Any) -> Any:
        first, *rest = [args] if isinstance(args, str) else args
        mode, order = first.split(";16")
        first = f"{mode};16{order.translate(swapped)}"
        return first if isinstance(args, str) else (first, *rest)

    upper = np.asarray(image).astype(np.uint16)
    with Image.open(file) as again:
        again.tile = [tile._replace(args=other_order(tile.args)) for tile in again.tile]
        return upper << 8 | np.asarray(again)


def _is_deep(image: ImageFile.ImageFile) -> bool:
    bits = getattr(image, "tag_v2", {}).get(258, (8,))  # the raw mode of an uncompressed TIFF does not show the depth
    return image.mode in ("RGB", "RGBA") and (";16" in str(image.tile) or bits[0] == 16)


def _to_srgb(image: Image.Image, name: str) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not profile:
        raise UserError(f"{name} is a CMYK image without a color profile: convert it to RGB first")
    converted = ImageCms.profileToProfile(
        image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert converted is not None  # only in-place conversions return None
    return converted


def _turn(array: np.ndarray, orientation: int) -> np.ndarray:
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    flip_rows, flip_columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return array[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def _resolution(image: Image.Image) -> tuple[float, float] | None:
    dpi = tuple(map(float, image.info.get("dpi", ())))
    return dpi if len(dpi) == 2 and all(0 < d < 1e6 for d in dpi) else None


def _check(image: Image.Image, name: str, limit: int) -> None:
    width, height = image.size
    if width * height > limit:
        raise UserError(
            f"{name} declares {width}×{height} pixels, more than the pixel limit of {limit}: raise the limit",
            parameter="pixel_limit",
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # phones store a preview or a gain map as the second frame
        raise UserError(f"{name} has {frames} frames: save the frame to upscale as a separate image")


def _decode(image: ImageFile.ImageFile, file: BinaryIO, name: str) -> Picture:
    grey = image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I;16")
    if image.mode.startswith("I;16"):
        samples = np.asarray(image).astype(np.uint16)[..., None]
        if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts 8-bit samples only
            samples = 65535 - samples
    elif _is_deep(image):
        samples = _deep_colors(image, file, name)
    elif image.mode == "CMYK":
        samples = np.asarray(_to_srgb(image, name))
    elif image.mode in _8_BIT_MODES:
        transparent = image.has_transparency_data
        mode = ("LA" if transparent else "L") if grey else ("RGBA" if transparent else "RGB")
        samples = np.asarray(image.convert(mode)).reshape(image.height, image.width, -1)
    else:
        raise UserError(
            f"{name} is an image of mode {image.mode}, which is not supported: convert it to 8-bit or 16-bit RGB"
        )
    exif = image.getexif()  # after decoding, because a PNG may store EXIF after its pixels
    orientation = exif.pop(_ORIENTATION, 1)
    xmp = image.info.get("xmp")
    alpha = None
    if samples.shape[-1] in (2, 4):
        alpha, samples = samples[..., -1], samples[..., :-1]
        if np.min(alpha) == np.iinfo(alpha.dtype).max:
            alpha = None
    return Picture(
        pixels=_turn(np.broadcast_to(samples, (*samples.shape[:2], 3)), orientation),
        alpha=None if alpha is None else _turn(alpha, orientation),
        grey=grey,
        format="JPEG" if image.format == "MPO" else str(image.format),
        icc_profile=None if image.mode == "CMYK" else image.info.get("icc_profile"),
        exif=exif.tobytes() if len(exif) else None,
        xmp=_XMP_ORIENTATION.sub(rb"\g<1>1", xmp) if isinstance(xmp, bytes) else None,
        dpi=_resolution(image),
    )


def read_picture(source: str | os.PathLike[str] | zipfile.Path | bytes, limit: int = PIXEL_LIMIT) -> Picture:
    """Reads an image file.

    Args:
      source: Path of the file, a file inside a zip archive, or the content of a file.
      limit: Largest number of pixels that the image may declare. The size is checked before anything is decoded.

    Returns:
      The image, rotated upright. CMYK is converted to sRGB with the embedded profile.

    Raises:
      UserError: The file cannot be read, is not an image of a supported format, or is damaged; or the image has more
        than `limit` pixels, several frames, CMYK colors without a profile, or samples that are not supported.
    """
    name = "standard input" if isinstance(source, bytes) else str(source)
    try:
        with _open(source) as file, Image.open(file) as image:
            _check(image, name, limit)
            return _decode(image, file, name)
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{name} declares too many pixels: {error}") from error
    except Exception as error:  # decoders raise many kinds of exceptions for damaged files
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"cannot read {name}: {error.strerror}") from error
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
        raise UserError(f"{name} is not an image or is damaged: {reason}") from error


def _open(source: str | os.PathLike[str] | zipfile.Path | bytes) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, zipfile.Path):
        return source.open("rb")  # type: ignore[return-value]
    return pathlib.Path(source).open("rb")


def read_size(source: str | os.PathLike[str] | bytes, limit: int = PIXEL_LIMIT) -> tuple[str, int, int]:
    """Reads the format and the size of an image, without decoding its pixels where the format allows it.

    Args:
      source: Path of the file, or the content of a file.
      limit: Largest number of pixels that the image may declare.

    Returns:
      Pillow's name for the format, and the height and the width in pixels of the image when rotated upright.

    Raises:
      UserError: `read_picture` cannot read the image.
    """
    try:
        with _open(source) as file, Image.open(file) as image:
            _check(image, str(source), limit)
            width, height = image.size
            # Pillow applies the orientation of a TIFF itself.
            if image.format != "TIFF" and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8):
                width, height = height, width
            return "JPEG" if image.format == "MPO" else str(image.format), height, width
    except Exception:  # what is wrong, or how else to read the file, is the full reader's to find out
        picture = read_picture(source, limit)
        return picture.format, *picture.pixels.shape[:2]


def read_rgb(source: str | os.PathLike[str] | zipfile.Path) -> np.ndarray:
    """Reads the colors of an 8-bit image, for training or evaluation. Transparency is dropped.

    Args:
      source: Path of the file, or a file inside a zip archive.

    Returns:
      uint8 `[H, W, 3]`, RGB, rotated upright.

    Raises:
      UserError: The file is not an image that `read_picture` reads, or it has 16 bits per channel.
    """
    picture = read_picture(source)
    if picture.pixels.dtype != np.uint8:
        raise UserError(f"{source} has 16 bits per channel: convert it to 8-bit RGB")
    return np.ascontiguousarray(picture.pixels)
