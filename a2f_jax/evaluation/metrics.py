"""PSNR and SSIM on luma, as super-resolution papers report them."""

import numpy as np
from skimage.metrics import structural_similarity

_WINDOW = 11
"""Side of SSIM's Gaussian window, in pixels."""


def luma(rgb: np.ndarray) -> np.ndarray:
    """Computes the Y of YCbCr as MATLAB's `rgb2ycbcr` does (ITU-R BT.601), without its rounding.

    Args:
      rgb: uint8 `[H, W, 3]`.

    Returns:
      float64 `[H, W]`, from 16 (black) to 235 (white).

    Raises:
      ValueError: the image has another shape or dtype.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[-1] != 3:
        raise ValueError(f"expected uint8 [H, W, 3], got {rgb.dtype} {list(rgb.shape)}")
    return 16 + rgb @ (np.array([65.481, 128.553, 24.966]) / 255)


def _shaved_luma(sr: np.ndarray, hr: np.ndarray, shave: int) -> tuple[np.ndarray, np.ndarray]:
    if sr.shape != hr.shape:
        raise ValueError(f"images of different shapes: {list(sr.shape)} and {list(hr.shape)}")
    height, width = hr.shape[:2]
    if min(height, width) < 2 * shave + _WINDOW:
        raise ValueError(
            f"an image of {width}×{height} is too small: {shave} pixels shaved off each side must leave 11×11"
        )
    inside = np.s_[shave : height - shave, shave : width - shave]
    return luma(sr)[inside], luma(hr)[inside]


def psnr_y(sr: np.ndarray, hr: np.ndarray, shave: int) -> float:
    """Computes the peak signal-to-noise ratio on luma, `10 · log10(255² / MSE)`.

    Args:
      sr: uint8 `[H, W, 3]`, the result.
      hr: uint8 `[H, W, 3]`, the truth.
      shave: pixels left out at each side, by convention the scale.

    Returns:
      Decibels; infinity where the two do not differ.

    Raises:
      ValueError: the shapes differ, or the images are too small.
    """
    x, y = _shaved_luma(sr, hr, shave)
    mse = np.mean((x - y) ** 2)
    return float(10 * np.log10(255**2 / mse)) if mse else float("inf")


def ssim_y(sr: np.ndarray, hr: np.ndarray, shave: int) -> float:
    """Computes the mean structural similarity on luma.

    As Wang et al. define it in "Image quality assessment: from error visibility to structural similarity"
    (2004) and in their MATLAB code: 11×11 Gaussian window, σ = 1.5, only windows inside the image, K1 = 0.01,
    K2 = 0.03, L = 255.

    Args:
      sr: uint8 `[H, W, 3]`, the result.
      hr: uint8 `[H, W, 3]`, the truth.
      shave: pixels left out at each side, by convention the scale.

    Returns:
      At most 1, which is reached where the two do not differ.

    Raises:
      ValueError: the shapes differ, or the images are too small.
    """
    x, y = _shaved_luma(sr, hr, shave)
    return float(
        structural_similarity(x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255)
    )
