"""Bicubic interpolation, results and truth of one image side by side."""

from collections.abc import Mapping

import numpy as np

from a2f_jax.data import matlab_bicubic
from a2f_jax.errors import UserError
from a2f_jax.evaluation.benchmark import Bicubic, Evaluable
from a2f_jax.evaluation.panels import side_by_side

_SIDE = 120
"""Width and height in pixels of the part that is shown unless another is asked for."""

_PANEL = 360
"""Least width in pixels of a panel of the picture."""


def compare(models: Mapping[str, Evaluable], truth: np.ndarray, crop: tuple[int, ...] | None = None) -> np.ndarray:
    """Shrinks an image, upscales it again with each model, and sets the results side by side.

    Args:
      models: caption and model, all of one scale; bicubic interpolation and the truth are added.
      truth: uint8 `[H, W, 3]`.
      crop: left, top, width and height of the part to show, in pixels; by default the middle. PSNR and SSIM in the
        captions are those of the whole image.

    Returns:
      The picture, uint8 `[h, w, 3]`.

    Raises:
      UserError: the models' scales differ, the image is too small, or the crop is not inside it.
    """
    scales = {model.scale for model in models.values()}
    if len(scales) != 1:
        raise UserError(f"the weights are of scales {sorted(scales)}: compare weights of one scale")
    (scale,) = scales
    height, width = (size // scale * scale for size in truth.shape[:2])
    if min(height, width) < 16 * scale:
        raise UserError(f"an image of {truth.shape[1]}×{truth.shape[0]} is too small to compare ×{scale} on")
    truth = truth[:height, :width]
    lr = matlab_bicubic(truth, 1 / scale)

    w, h = min(_SIDE, width), min(_SIDE, height)
    x, y, w, h = crop or ((width - w) // 2, (height - h) // 2, w, h)
    if not (0 <= x < x + w <= width and 0 <= y < y + h <= height):
        raise UserError(f"--crop {x},{y},{w},{h} is not inside the image of {width}×{height}")
    results = [(name, model.upscale(lr)) for name, model in {"bicubic": Bicubic(scale), **models}.items()]
    picture = side_by_side(
        [*results, ("truth", truth)],
        truth=truth,
        shave=scale,
        crop=(x, y, x + w, y + h),
        enlarge=max(1, -(-_PANEL // w)),
    )
    return np.asarray(picture)
