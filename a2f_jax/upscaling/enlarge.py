"""Enlarges decoded pictures by any factor: grayscale, transparency and 16 bits included."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
from PIL import Image

from a2f_jax.errors import UserError
from a2f_jax.images import Picture
from a2f_jax.upscaling.tiles import Progress
from a2f_jax.upscaling.upscaler import Upscaler, quantize

SMALLEST = 8
"""Minimum width and height of an image in pixels."""

Target = float | tuple[int, int] | None
"""A factor, a box (width, height) to fit into while keeping the aspect ratio, or None for the scale of the model."""


@dataclasses.dataclass(frozen=True)
class Enlargement:
    """Size and kind of the result for a picture.

    Attributes:
      height: height of the result in pixels.
      width: width of the result in pixels.
      channels: 1 for gray, 2 for gray and alpha, 3 for RGB, 4 for RGB and alpha.
      dtype: uint8 or uint16.
      passes: number of times that the model is applied.
    """

    height: int
    width: int
    channels: int
    dtype: np.dtype
    passes: int

    @property
    def nbytes(self) -> int:
        """Size of the result's pixels in bytes."""
        return self.height * self.width * self.channels * self.dtype.itemsize


def factor_of(height: int, width: int, scale: int, target: Target) -> float:
    """Returns the factor by which an image is enlarged.

    Args:
      height: height of the image in pixels.
      width: width of the image in pixels.
      scale: upscaling factor of the model.
      target: requested factor or size.

    Returns:
      The factor; at most 1 if the image already fills the requested size.
    """
    if target is None:
        return scale
    return target if isinstance(target, int | float) else min(target[0] / width, target[1] / height)


def enlargement_of(picture: Picture, scale: int, target: Target, deep: bool) -> Enlargement:
    """Computes the size and kind of the result for a picture.

    Args:
      picture: the original.
      scale: upscaling factor of the model.
      target: requested factor or size.
      deep: whether the output format can hold 16 bits per channel.

    Returns:
      A description of the result.

    Raises:
      UserError: the picture is too small, or the result would not be larger than the original.
    """
    height, width = picture.pixels.shape[:2]
    if min(width, height) < SMALLEST:
        raise UserError(f"an image of {width}×{height} pixels is too small: it needs at least {SMALLEST}×{SMALLEST}")
    factor = factor_of(height, width, scale, target)
    if factor <= 1:
        raise UserError(f"an image of {width}×{height} pixels already has the requested size: request a larger one")
    return Enlargement(
        height=round(height * factor),
        width=round(width * factor),
        channels=(1 if picture.grey else 3) + (picture.alpha is not None),
        dtype=picture.pixels.dtype if deep else np.dtype(np.uint8),
        passes=max(1, math.ceil(math.log(factor, scale) - 1e-9)),
    )


def _shrunk(image: np.ndarray, height: int, width: int) -> np.ndarray:
    channels = [Image.fromarray(image[..., c]).resize((width, height), Image.Resampling.LANCZOS) for c in range(3)]
    return np.stack([np.asarray(channel) for channel in channels], -1)


def _float(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max / 255)


def enlarge(upscaler: Upscaler, picture: Picture, to: Enlargement, progress: Progress) -> Iterator[np.ndarray]:
    """Enlarges a picture.

    Colors are multiplied by alpha before the network and divided by it afterwards, so that the invisible colors of
    transparent pixels do not bleed into their neighbors.

    Args:
      upscaler: applies the model.
      picture: the original.
      to: size and kind of the result, as returned by `enlargement_of`.
      progress: called with the number of tile programs that have run since the previous call.

    Yields:
      Strips `[h, width, channels]` of `to.dtype`, from top to bottom.
    """
    height, width = picture.pixels.shape[:2]
    exact = (to.height, to.width) == (height * upscaler.scale, width * upscaler.scale)

    def strips(image: np.ndarray) -> Iterator[np.ndarray]:
        for _ in range(to.passes - 1):
            image = upscaler.upscale(image, progress=progress)
        if exact or (to.height, to.width) == tuple(side * upscaler.scale for side in image.shape[:2]):
            yield from upscaler.strips(image, progress=progress)
        else:
            yield _shrunk(upscaler.upscale(image, progress=progress), to.height, to.width)

    def finished(colors: np.ndarray, alpha: np.ndarray | None = None) -> np.ndarray:
        if picture.grey:
            colors = colors.mean(-1, keepdims=True, dtype=np.float32)
        samples = colors if alpha is None else np.concatenate([colors, alpha], -1)
        return quantize(samples, to.dtype)

    if picture.alpha is None:
        # Pixels that need no other processing are rounded on the device, without a detour through float32.
        direct = exact and not picture.grey and to.dtype == picture.pixels.dtype
        image = picture.pixels if direct else _float(picture.pixels)
        yield from strips(image) if direct else map(finished, strips(image))
        return
    alpha = _float(picture.alpha)[..., None]
    colors = _float(picture.pixels) * (alpha / 255)
    for strip, cover in zip(strips(colors), strips(np.repeat(alpha, 3, -1)), strict=True):
        opacity = np.clip(cover.mean(-1, keepdims=True), 0, 255)
        yield finished(strip * (255 / np.maximum(opacity, 0.5)), opacity)


def steps(upscaler: Upscaler, picture: Picture, to: Enlargement) -> int:
    """Returns the total that `enlarge` calls `progress` with."""
    height, width = picture.pixels.shape[:2]
    scale, layers = upscaler.scale, 1 if picture.alpha is None else 2
    return layers * sum(upscaler.steps(height * scale**i, width * scale**i) for i in range(to.passes))
