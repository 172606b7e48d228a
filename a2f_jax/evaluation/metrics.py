"""PSNR and SSIM on luma, as papers on super-resolution report them."""

import numpy as np
from skimage.metrics import structural_similarity

_WINDOW = 11
"""Width and height of SSIM's Gaussian window, in pixels."""


def luma(rgb: np.ndarray) -> np.ndarray:
    """Computes the Y channel of MATLAB's `rgb2ycbcr` (ITU-R BT.601), without rounding it.

    Args:
      rgb: an RGB image, uint8 `[H, W, 3]`.

    Returns:
      float64 `[H, W]`, from 16 (black) to 235 (white).

    Raises:
      ValueError: the image has a different shape or dtype.
    """
    rgb = np.asarray(rgb)  # JAX would compute in float32
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[-1] != 3:
        raise ValueError(f"expected uint8 [H, W, 3], got {rgb.dtype} {list(rgb.shape)}")
    return 16 + rgb @ (np.array([65.481, 128.553, 24.966]) / 255)


def _shaved_luma(sr: np.ndarray, hr: np.ndarray, shave: int) -> tuple[np.ndarray, np.ndarray]:
    sr, hr = np.asarray(sr), np.asarray(hr)
    if sr.shape != hr.shape:
        raise ValueError(f"the images have different shapes: {list(sr.shape)} and {list(hr.shape)}")
    if shave < 0:
        raise ValueError(f"shave is {shave}, but must be at least 0")
    result, truth = luma(sr), luma(hr)
    height, width = truth.shape
    check_size(height, width, shave)
    inside = np.s_[shave : height - shave, shave : width - shave]
    return result[inside], truth[inside]


def check_size(height: int, width: int, shave: int) -> None:
    """Checks that images can be measured.

    Args:
      height: height in pixels.
      width: width in pixels.
      shave: the number of pixels to ignore at each border.

    Raises:
      ValueError: fewer than 11×11 pixels remain inside the border.
    """
    if min(height, width) < 2 * shave + _WINDOW:
        raise ValueError(
            f"the image of {width}×{height} is too small: {_WINDOW}×{_WINDOW} pixels must remain after cropping "
            f"{shave} pixels from each side"
        )


def psnr_y(sr: np.ndarray, hr: np.ndarray, shave: int) -> float:
    """Computes the peak signal-to-noise ratio on luma: `10 · log10(255² / MSE)`.

    Args:
      sr: the result, uint8 RGB `[H, W, 3]`.
      hr: the ground truth, uint8 RGB `[H, W, 3]`.
      shave: the number of pixels to ignore at each border, by convention the scale.

    Returns:
      The ratio in dB; infinity for identical images.

    Raises:
      ValueError: the shapes differ, the dtype is not uint8, `shave` is negative, or fewer than 11×11 pixels remain
        inside the border.
    """
    x, y = _shaved_luma(sr, hr, shave)
    mse = np.mean((x - y) ** 2)
    return float(10 * np.log10(255**2 / mse)) if mse else float("inf")


MOST_PSNR = 100.0
"""The PSNR in dB that an image without an error counts as in a mean.

Infinity would make the mean infinite and hide all other images. Over 512×512 pixels, 100 dB is an error of one level in
a few of them.
"""


def ssim_y(sr: np.ndarray, hr: np.ndarray, shave: int) -> float:
    """Computes the mean structural similarity on luma.

    The definition is that of Wang et al., "Image quality assessment: from error visibility to structural similarity"
    (2004), and of their MATLAB code: an 11×11 Gaussian window with σ = 1.5, only windows that lie inside the image,
    K1 = 0.01, K2 = 0.03, L = 255.

    Args:
      sr: the result, uint8 RGB `[H, W, 3]`.
      hr: the ground truth, uint8 RGB `[H, W, 3]`.
      shave: the number of pixels to ignore at each border, by convention the scale.

    Returns:
      A value of at most 1, which identical images reach.

    Raises:
      ValueError: the shapes differ, the dtype is not uint8, `shave` is negative, or fewer than 11×11 pixels remain
        inside the border.
    """
    x, y = _shaved_luma(sr, hr, shave)
    return float(
        structural_similarity(x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255)
    )
