"""Reads the TIFF files that Pillow cannot: separate planes, floating point, 16-bit grayscale with alpha."""

import logging
from typing import Any, BinaryIO

import numpy as np

from a2f_jax.errors import UserError
from a2f_jax.images.limits import check_size

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA = 1, 2

NEW_SUBFILE_TYPE, REDUCED = 254, 1
"""The tag that tells thumbnails and overviews, and its bit that does."""


def read_tiff(file: BinaryIO, name: str, limit: int) -> tuple[np.ndarray, dict[int, Any]]:
    """Decodes the first image of a TIFF file with tifffile.

    Args:
      file: the file.
      name: its name, for messages.
      limit: largest number of pixels that the image may declare.

    Returns:
      Samples `[H, W, 1..4]`, uint8 or uint16: grayscale or RGB, then alpha if there is any. Floating-point samples
      0..1 become uint16. And the values of the tags by number.

    Raises:
      UserError: the image is too large, or its samples have no defined mapping to 16-bit RGB.
    """
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it would log is part of the error
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        frames = 1 + sum(not getattr(other, "subfiletype", 0) & REDUCED for other in tiff.pages[1:])
        check_size(name, page.imagewidth, page.imagelength, limit, frames)
        photometric, bits = page.photometric, page.bitspersample
        supported = page.dtype is not None and (page.dtype.kind == "f" or (page.dtype.kind == "u" and bits in (8, 16)))
        if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB) or page.imagedepth != 1 or not supported:
            layout = f"{page.samplesperpixel}×{bits}-bit {page.dtype} samples, photometric {int(photometric)}"
            raise UserError(f"{name} is a TIFF of an unsupported kind ({layout}): convert it to 8-bit or 16-bit RGB")
        try:
            samples = page.asarray(maxworkers=1)
        except ValueError as error:
            if "imagecodecs" in str(error):
                raise UserError(
                    f"{name} needs another decoder ({error}): install 'a2f_jax[formats]', or convert the file to PNG"
                ) from error
            raise
        planes, extra = page.samplesperpixel, tuple(page.extrasamples or ())
        tags = {tag.code: tag.value for tag in page.tags}
        separate = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and planes > 1
    samples = np.moveaxis(samples, 0, -1) if separate else samples.reshape(*samples.shape[:2], planes)
    colors = 3 if photometric == _RGB else 1
    if samples.ndim != 3 or planes < colors:
        raise ValueError("the TIFF tags contradict each other")
    if samples.dtype.kind == "f":
        samples = _to_16_bit(samples, name)
    alpha = next((i for i, kind in enumerate(extra) if kind in (_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA)), None)
    color = samples[..., :colors]
    highest = np.iinfo(samples.dtype).max
    if photometric == _WHITE_IS_ZERO:
        color = highest - color
    if alpha is None:
        return color, tags
    opacity = samples[..., colors + alpha, None]
    if extra[alpha] == _ASSOCIATED_ALPHA:
        straight = np.rint(color * (highest / np.maximum(opacity, 1, dtype=np.float64)))
        color = np.minimum(straight, highest).astype(samples.dtype)
    return np.concatenate([color, opacity], -1), tags


def _to_16_bit(samples: np.ndarray, name: str) -> np.ndarray:
    low, high = float(samples.min()), float(samples.max())
    if not (low >= 0 and high <= 1):  # false for NaN too
        raise UserError(
            f"{name} has floating-point samples from {low:g} to {high:g}, but only 0..1 can be read: scale or tone-map "
            "them to 0..1, or convert the image to 16 bits"
        )
    return np.rint(samples.astype(np.float64) * 65535).astype(np.uint16)
