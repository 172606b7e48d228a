"""From an original with grey, alpha or 16 bits to its enlargement by any factor."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
from PIL import Image

from a2f_jax.errors import UserError
from a2f_jax.images import Picture
from a2f_jax.upscaling.tiles import Progress
from a2f_jax.upscaling.upscaler import Upscaler, quantise

SMALLEST = 8
"""The fewest pixels per side that an image may have."""

Target = float | tuple[int, int] | None
"""A factor, a box (width, height) to fill without changing proportions, or the model's own scale."""


@dataclasses.dataclass(frozen=True)
class Enlargement:
    """What will be made of a picture.

    Attributes:
      height: of the result, in pixels.
      width: likewise.
      channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
      dtype: uint8 or uint16.
      passes: how often the model is applied.
    """

    height: int
    width: int
    channels: int
    dtype: np.dtype
    passes: int

    @property
    def nbytes(self) -> int:
        """Bytes of the result's pixels."""
        return self.height * self.width * self.channels * self.dtype.itemsize


def enlargement_of(picture: Picture, scale: int, target: Target, deep: bool) -> Enlargement:
    """Works out size and kind of a result.

    Args:
      picture: the original.
      scale: the model's.
      target: how large the result shall be.
      deep: whether 16 bits can be kept.

    Raises:
      UserError: the result would not be larger than the original.
    """
    height, width = picture.pixels.shape[:2]
    if min(width, height) < SMALLEST:
        raise UserError(f"{width}×{height} pixels are too few: an image needs at least {SMALLEST}×{SMALLEST}")
    factor = (
        target if isinstance(target, int | float) else min(target[0] / width, target[1] / height) if target else scale
    )
    if factor <= 1:
        raise UserError(
            f"{width}×{height} pixels are as large as the size asked for: ask for more, or leave it as it is"
        )
    return Enlargement(
        height=round(height * factor),
        width=round(width * factor),
        channels=(1 if picture.grey else 3) + (picture.alpha is not None),
        dtype=picture.pixels.dtype if deep else np.dtype(np.uint8),
        passes=max(1, math.ceil(math.log(factor, scale) - 1e-9)),
    )


def _shrunk(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Antialiased downscaling, float32 in and out."""
    channels = [Image.fromarray(image[..., c]).resize((width, height), Image.Resampling.LANCZOS) for c in range(3)]
    return np.stack([np.asarray(channel) for channel in channels], -1)


def _float(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max / 255)


def enlarge(upscaler: Upscaler, picture: Picture, to: Enlargement, progress: Progress) -> Iterator[np.ndarray]:
    """Enlarges a picture.

    Colours are multiplied by alpha before and divided after, so that what hides under transparent pixels does not
    bleed into their neighbours.

    Args:
      upscaler: does the work.
      picture: the original.
      to: see `enlargement_of`.
      progress: see `Upscaler`.

    Yields:
      The result from top to bottom, `[h, width, channels]` of its dtype.
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

    def finished(colours: np.ndarray, alpha: np.ndarray | None = None) -> np.ndarray:
        if picture.grey:
            colours = colours.mean(-1, keepdims=True, dtype=np.float32)
        samples = colours if alpha is None else np.concatenate([colours, alpha], -1)
        return quantise(samples, to.dtype)

    if picture.alpha is None:
        # Rounded on the device, without a detour through float32, where nothing else is to be done.
        direct = exact and not picture.grey and to.dtype == picture.pixels.dtype
        image = picture.pixels if direct else _float(picture.pixels)
        yield from strips(image) if direct else map(finished, strips(image))
        return
    alpha = _float(picture.alpha)[..., None]
    colours = _float(picture.pixels) * (alpha / 255)
    for strip, cover in zip(strips(colours), strips(np.repeat(alpha, 3, -1)), strict=True):
        opacity = np.clip(cover.mean(-1, keepdims=True), 0, 255)
        yield finished(strip * (255 / np.maximum(opacity, 0.5)), opacity)


def steps(upscaler: Upscaler, picture: Picture, to: Enlargement) -> int:
    """The number of steps that `enlarge` tells its progress of."""
    height, width = picture.pixels.shape[:2]
    scale, layers = upscaler.scale, 1 if picture.alpha is None else 2
    return layers * sum(upscaler.steps(height * scale**i, width * scale**i) for i in range(to.passes))
