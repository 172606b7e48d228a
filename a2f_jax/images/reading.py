"""Image files of every kind as pixels to upscale, with what else they carry."""

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
"""Most pixels that an image may claim to have; more are taken for an attack on memory."""

_ORIENTATION = 0x0112
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>))[1-8]")
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # of TIFF

_8_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr")


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image, upright.

    Attributes:
      pixels: uint8 or uint16 `[H, W, 3]`, RGB.
      alpha: `[H, W]` of the same dtype, or None where everything is opaque.
      grey: whether the file was greyscale; the three channels are the same then.
      format: Pillow's name of the file's format, such as "PNG".
      icc_profile: the colour profile, or None.
      exif: the EXIF block without the orientation, or None.
      xmp: the XMP packet, upright too, or None.
      dpi: dots per inch in x and y, or None.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    format: str = "PNG"
    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None


def _deep_colours(image: ImageFile.ImageFile, file: BinaryIO, name: str) -> np.ndarray:
    """Decodes 16-bit colours, of which Pillow itself keeps the upper 8 bits.

    Its decoders take the order of the two bytes from the tile's raw mode. Decoded once in each order, the image
    gives the upper and the lower bytes.
    """
    if any(";16" not in str(tile.args) or "LA" in str(tile.args) for tile in image.tile):
        raise UserError(
            f"{name} keeps its 16 bits a channel in an unusual way: convert it to a 16-bit PNG with RGB colours"
        )
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
    bits = getattr(image, "tag_v2", {}).get(258, (8,))  # of a TIFF; without compression its tiles do not tell
    return image.mode in ("RGB", "RGBA") and (";16" in str(image.tile) or bits[0] == 16)


def _to_srgb(image: Image.Image, name: str) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not profile:
        raise UserError(f"{name} is a CMYK image without a colour profile: convert it to RGB first")
    converted = ImageCms.profileToProfile(
        image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert converted is not None  # only in-place conversions return nothing
    return converted


def _turn(array: np.ndarray, orientation: int) -> np.ndarray:
    """Sets upright what EXIF's orientation 1..8 describes; `[H, W, ...]`."""
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
            f"{name} claims {width}×{height} pixels, more than the limit of {limit}: raise --pixel-limit to believe it"
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a telephone's JPEG with a preview as its second frame
        raise UserError(f"{name} has {frames} frames: extract them to single images first")


def _decode(image: ImageFile.ImageFile, file: BinaryIO, name: str) -> Picture:
    grey = image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I;16")
    if image.mode.startswith("I;16"):
        samples = np.asarray(image).astype(np.uint16)[..., None]
        if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # which Pillow heeds in 8 bits only
            samples = 65535 - samples
    elif _is_deep(image):
        samples = _deep_colours(image, file, name)
    elif image.mode == "CMYK":
        samples = np.asarray(_to_srgb(image, name))
    elif image.mode in _8_BIT_MODES:
        transparent = image.has_transparency_data
        mode = ("LA" if transparent else "L") if grey else ("RGBA" if transparent else "RGB")
        samples = np.asarray(image.convert(mode)).reshape(image.height, image.width, -1)
    else:
        raise UserError(f"{name} is a {image.mode} image: convert it to RGB of 8 or 16 bits first")
    exif = image.getexif()  # only now: in a PNG it may come after the pixels
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
      source: the file, also one inside a zip archive, or its content.
      limit: the largest number of pixels it may have.

    Returns:
      The picture. CMYK is converted to sRGB by its profile.

    Raises:
      UserError: it is not an image, is damaged, has more pixels than allowed or several frames, is CMYK without a
        profile, or is of another kind that cannot be upscaled.
    """
    name = "the standard input" if isinstance(source, bytes) else str(source)
    try:
        with _open(source) as file, Image.open(file) as image:
            _check(image, name, limit)
            return _decode(image, file, name)
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{name} is too large to be believed: {error}") from error
    except Exception as error:  # a damaged file can raise nearly anything
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"cannot read {name}: {error.strerror}") from error
        reason = (
            "none of the known formats" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
        )
        raise UserError(f"{name} is not an image or is damaged: {reason}") from error


def _open(source: str | os.PathLike[str] | zipfile.Path | bytes) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, zipfile.Path):
        return source.open("rb")  # type: ignore[return-value]
    return pathlib.Path(source).open("rb")


def read_rgb(source: str | os.PathLike[str] | zipfile.Path) -> np.ndarray:
    """Reads an image for training or evaluation: upright, 8 bits per channel, transparency dropped.

    Args:
      source: a file, also one inside a zip archive.

    Returns:
      uint8 `[H, W, 3]`.

    Raises:
      UserError: see `read_picture`; or the image has 16 bits per channel.
    """
    picture = read_picture(source)
    if picture.pixels.dtype != np.uint8:
        raise UserError(f"{source} has 16 bits a channel: convert it to 8-bit RGB first")
    return np.ascontiguousarray(picture.pixels)
