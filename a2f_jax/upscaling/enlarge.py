"""Enlarges decoded pictures by any factor: grayscale, transparency and 16 bits included."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from a2f_jax.errors import UserError
from a2f_jax.images import Picture
from a2f_jax.images.pil import from_pil, to_pil
from a2f_jax.upscaling.resizing import resize_strips
from a2f_jax.upscaling.tiles import Progress
from a2f_jax.upscaling.transparency import AlphaLimits, extend_colors
from a2f_jax.upscaling.windows import quantize

if TYPE_CHECKING:
    from a2f_jax.upscaling.plan import Plan
    from a2f_jax.upscaling.upscaler import Upscaler

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
        channels=(1 if picture.gray else 3) + (picture.alpha is not None),
        dtype=picture.pixels.dtype if deep else np.dtype(np.uint8),
        passes=_passes(factor, scale),
    )


def _passes(factor: float, scale: int) -> int:
    # The power of the scale that is nearest to the factor, in proportion; resizing does the rest. Another pass takes
    # scale² times as long as the one before. If most of its result is reduced again, it gains nothing: PSNR and SSIM on
    # Set14 at ×5 and ×8 with ×4 weights are the same without it (25.20 and 23.86 dB).
    return max(1, math.ceil(math.log(factor, scale) - 0.5 - 1e-9))


@dataclasses.dataclass(frozen=True)
class _Pass:
    """What one application of the model takes: size of its input, host memory in use, and number of images in turn."""

    height: int
    width: int
    reserved: int
    images: int


def _schedule(scale: int, picture: Picture, to: Enlargement, reserved: int) -> list[_Pass]:
    height, width = picture.pixels.shape[:2]
    layers = 1 if picture.alpha is None else 2
    held = reserved + picture.pixels.nbytes
    if picture.alpha is not None:
        held += picture.pixels.nbytes + 3 * picture.alpha.nbytes  # extended colors; alpha and its limits
    passes = []
    for index in range(to.passes):
        last = index == to.passes - 1
        pixels = layers * height * width
        # All passes but the first take float32, all but the last keep their results.
        inputs = 12 * pixels if index else 0
        outputs = 0 if last else 12 * scale**2 * pixels
        passes.append(_Pass(height, width, held + inputs + outputs, layers if last else 1))
        height, width = height * scale, width * scale
    return passes


def _plans(upscaler: "Upscaler", picture: Picture, to: Enlargement, reserved: int) -> list[tuple[_Pass, "Plan"]]:
    schedule = _schedule(upscaler.scale, picture, to, reserved)
    return [(each, upscaler.plan(each.height, each.width, each.reserved, each.images)) for each in schedule]


def enlarge(
    upscaler: "Upscaler", picture: Picture, to: Enlargement, progress: Progress, *, reserved: int = 0
) -> Iterator[np.ndarray]:
    """Enlarges a picture.

    Colors and alpha are upscaled separately. The invisible colors of fully transparent pixels are first replaced with
    visible ones nearby, so that they do not bleed. What is fully transparent or opaque stays so, except next to edges.

    Args:
      upscaler: applies the model.
      picture: the original.
      to: size and kind of the result, as returned by `enlargement_of`.
      progress: called with the number of tile programs that have run since the previous call.
      reserved: bytes of host memory that the caller uses during the computation, for example for the result.

    Returns:
      Strips `[h, width, channels]` of `to.dtype`, from top to bottom.

    Raises:
      UserError: the memory budget, or the free disk space for the states, is too small for any of the passes, which is
        found out at once; or, during the computation, the result is not finite.
    """
    schedule = [each for each, _ in _plans(upscaler, picture, to, reserved)]
    return _strips(upscaler, picture, to, progress, schedule)


def _strips(
    upscaler: "Upscaler", picture: Picture, to: Enlargement, progress: Progress, schedule: Sequence[_Pass]
) -> Iterator[np.ndarray]:
    *first, last = schedule
    alpha = picture.alpha
    layers = [picture.pixels]
    if alpha is not None:
        layers = [extend_colors(picture.pixels, alpha), np.broadcast_to(alpha[..., None], picture.pixels.shape)]
    for each in first:
        layers = [_upscaled(upscaler, layer, each, progress) for layer in layers]

    height, width = (side * upscaler.scale for side in (last.height, last.width))
    exact = (height, width) == (to.height, to.width)

    def final(layer: np.ndarray, dtype: np.dtype) -> Iterator[np.ndarray]:
        strips = upscaler.strips(layer, dtype=dtype, reserved=last.reserved, images=last.images, progress=progress)
        return strips if exact else resize_strips(strips, height, (to.height, to.width))

    # Pixels that need no other processing are rounded on the device, without a detour through float32.
    colors = final(layers[0], to.dtype if exact and not picture.gray else np.dtype(np.float32))
    if alpha is None:
        for strip in colors:
            yield _finished(strip, picture.gray, to.dtype)
        return
    limits, row = AlphaLimits(alpha), 0
    covers = _Rows(final(layers[1], np.dtype(np.float32)))
    for strip in colors:
        opacity = limits.apply(covers.take(len(strip)).mean(-1), row, to.height, to.width)
        row += len(strip)
        yield np.concatenate([_finished(strip, picture.gray, to.dtype), quantize(opacity[..., None], to.dtype)], -1)


class _Rows:
    """Strips of an image as strips of other heights: tiles of colors and alpha may differ when memory is short."""

    def __init__(self, strips: Iterator[np.ndarray]):
        self._strips = strips
        self._rest = next(strips)

    def take(self, count: int) -> np.ndarray:
        while len(self._rest) < count:
            self._rest = np.concatenate([self._rest, next(self._strips)])
        rows, self._rest = self._rest[:count], self._rest[count:]
        return rows


def _upscaled(upscaler: "Upscaler", image: np.ndarray, each: _Pass, progress: Progress) -> np.ndarray:
    out = np.empty((each.height * upscaler.scale, each.width * upscaler.scale, 3), np.float32)
    row = 0
    for strip in upscaler.strips(image, dtype=out.dtype, reserved=each.reserved, progress=progress):
        np.clip(strip, 0, 255, out=out[row : row + len(strip)])  # the next pass expects an image
        row += len(strip)
    return out


def _finished(strip: np.ndarray, gray: bool, dtype: np.dtype) -> np.ndarray:
    if strip.dtype == dtype:
        return strip
    return quantize(strip.mean(-1, keepdims=True) if gray else strip, dtype)


def steps(upscaler: "Upscaler", picture: Picture, to: Enlargement, *, reserved: int = 0) -> int:
    """Returns the total that `enlarge` calls `progress` with.

    Args:
      upscaler: applies the model.
      picture: the original.
      to: size and kind of the result, as returned by `enlargement_of`.
      reserved: as for `enlarge`.

    Raises:
      UserError: the memory budget, or the free disk space for the states, is too small.
    """
    layers = 1 if picture.alpha is None else 2
    plans = _plans(upscaler, picture, to, reserved)
    return layers * sum(upscaler.steps(each.height, each.width, plan) for each, plan in plans)


def share(upscaler: "Upscaler", picture: Picture, to: Enlargement, *, reserved: int = 0) -> float:
    """Returns the part of the CPU's cores or of the memory that `enlarge` takes, as `Plan.share` does.

    Args:
      upscaler: applies the model.
      picture: the original.
      to: size and kind of the result, as returned by `enlargement_of`.
      reserved: as for `enlarge`.

    Raises:
      UserError: the memory budget, or the free disk space for the states, is too small.
    """
    return max(plan.share for _, plan in _plans(upscaler, picture, to, reserved))


def upscale_pil(upscaler: "Upscaler", image: Image.Image, progress: Progress) -> Image.Image:
    """Upscales a PIL image by the scale of the model.

    Args:
      upscaler: computes the colors.
      image: an image of at least 8×8 pixels and mode 1, L, LA, P, PA, RGB, RGBA, RGBX, YCbCr or I;16.
      progress: called with the number of tile programs that have run since the previous call.

    Returns:
      An image of mode L, LA, RGB, RGBA or I;16. As with `Image.resize`, `info` is that of the original, and an EXIF
      orientation is not applied.

    Raises:
      ValueError: the image has another mode.
      UserError: the image or the memory is too small, or the result is not finite.
    """
    picture = from_pil(image)
    opaque = picture.alpha is not None and bool((picture.alpha == np.iinfo(picture.alpha.dtype).max).all())
    if opaque:  # saves upscaling it
        picture = dataclasses.replace(picture, alpha=None)
    to = enlargement_of(picture, upscaler.scale, None, deep=True)
    result = to_pil(np.concatenate(list(enlarge(upscaler, picture, to, progress))))
    if opaque:
        result.putalpha(255)
    result.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return result
