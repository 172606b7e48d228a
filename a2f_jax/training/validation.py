"""Validation during training: PSNR and SSIM on held-out images."""

from collections.abc import Sequence

import numpy as np

from a2f_jax.data import Pair
from a2f_jax.evaluation.metrics import psnr_y, ssim_y
from a2f_jax.model import Model

_CROP = 128
"""Side in LR pixels of the center crop that validation measures.

A fixed crop keeps the scores comparable, needs few compilations and takes little time from training; `a2f evaluate`
measures whole images."""


def center_crop(pair: Pair, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the central crop of a pair as `(LR, HR)`, at most 128 LR pixels high and wide."""
    height, width = (min(_CROP, size) for size in pair.lr.shape[:2])
    top, left = (pair.lr.shape[0] - height) // 2, (pair.lr.shape[1] - width) // 2
    lr = pair.lr[top : top + height, left : left + width]
    top, left, height, width = (scale * value for value in (top, left, height, width))
    return lr, pair.hr[top : top + height, left : left + width]


def validate(model: Model, images: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray | None]:
    """Measures a model on validation images.

    Args:
      model: the model with the current weights.
      images: pairs of LR and HR images, uint8 `[h, w, 3]` and `[scale · h, scale · w, 3]`.

    Returns:
      The sum of the PSNR values in dB, the sum of the SSIM values, both on luma, and the number of images, float64
      `[3]`, which can be summed over processes; and the first SR image beside its HR image, uint8 `[H, 2 · W, 3]`,
      or None if there are no images.
    """
    results = [model.upscale(lr) for lr, _ in images]
    sums = np.zeros(3)
    for sr, (_, hr) in zip(results, images, strict=True):
        sums += psnr_y(sr, hr, model.scale), ssim_y(sr, hr, model.scale), 1
    return sums, np.concatenate([results[0], images[0][1]], 1) if results else None
