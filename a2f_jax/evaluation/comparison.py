"""One image upscaled by several models, next to bicubic interpolation and the ground truth."""

from collections.abc import Mapping

import numpy as np

from a2f_jax.data import matlab_bicubic
from a2f_jax.errors import UserError
from a2f_jax.evaluation.benchmark import Bicubic, Evaluable, check_jpeg_quality, jpeg_compressed
from a2f_jax.evaluation.panels import NARROWEST, side_by_side

_SIDE = 120
"""Default width and height of the crop, in pixels."""

_PANEL = 360
"""Minimum width of a panel of the output, in pixels."""


def compare(
    models: Mapping[str, Evaluable],
    truth: np.ndarray,
    crop: tuple[int, ...] | None = None,
    *,
    jpeg: int | None = None,
) -> np.ndarray:
    """Downscales an image, upscales it with each model, and draws a crop of every result side by side.

    Args:
      models: the models by caption, all with the same scale. Panels with bicubic interpolation and the ground truth are
        added.
      truth: the ground truth, uint8 RGB `[H, W, 3]`.
      crop: left, top, width and height of the region to show, in pixels (default: 120×120 in the center). The PSNR and
        SSIM in the captions are those of the whole image.
      jpeg: a quality, 1..100, at which the downscaled image is saved as JPEG (4:2:0) and read again; None leaves it as
        it is.

    Returns:
      The drawing, uint8 RGB `[h, w, 3]`.

    Raises:
      UserError: the models' scales differ, the image is smaller than 16 · scale pixels, the crop does not lie inside
        the image or is too narrow, or the quality is invalid.
    """
    check_jpeg_quality(jpeg)
    scales = {model.scale for model in models.values()}
    if len(scales) != 1:
        raise UserError(
            f"the weights have different scales ({', '.join(map(str, sorted(scales)))}): compare weights of one scale"
        )
    (scale,) = scales
    height, width = (size // scale * scale for size in truth.shape[:2])
    if min(height, width) < 16 * scale:
        raise UserError(
            f"the image of {truth.shape[1]}×{truth.shape[0]} is too small for a comparison at ×{scale}: "
            f"use one of at least {16 * scale}×{16 * scale} pixels"
        )
    truth = truth[:height, :width]
    lr = jpeg_compressed(matlab_bicubic(truth, 1 / scale), jpeg)

    w, h = min(_SIDE, width), min(_SIDE, height)
    x, y, w, h = crop or ((width - w) // 2, (height - h) // 2, w, h)
    if not (0 <= x < x + w <= width and 0 <= y < y + h <= height):
        raise UserError(f"the crop {x},{y},{w},{h} does not lie inside the image of {width}×{height}", parameter="crop")
    if max(w, h) > NARROWEST * min(w, h):
        raise UserError(
            f"the crop {x},{y},{w},{h} is too narrow for captions: make its sides differ by a factor of at most "
            f"{NARROWEST}",
            parameter="crop",
        )
    baseline = "bicubic" if jpeg is None else f"bicubic of JPEG {jpeg}"
    results = [(name, model.upscale(lr)) for name, model in [(baseline, Bicubic(scale)), *models.items()]]
    picture = side_by_side(
        [*results, ("ground truth", truth)],
        truth=truth,
        shave=scale,
        crop=(x, y, x + w, y + h),
        enlarge=max(1, -(-_PANEL // max(w, h))),
    )
    return np.asarray(picture)
