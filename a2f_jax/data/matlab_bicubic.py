"""MATLAB's `imresize(image, scale, 'bicubic')` on uint8, bit for bit.

Super-resolution papers create their LR images with it. It differs from the bicubic filters of other libraries in three
ways: the kernel constant is a = -0.5, downscaling is antialiased (the kernel is stretched by 1/scale), and the
intermediate result between the vertical and the horizontal pass is rounded to uint8.
"""

import math
from typing import Literal

import numpy as np


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -0.5 (1981, equation 15)."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0))


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0)


def _box(x: np.ndarray) -> np.ndarray:
    return ((x >= -0.5) & (x < 0.5)).astype(float)


# The kernels of `imresize`, and their width in pixels, by the names that Pillow and OpenCV users know.
_KERNELS = {"bicubic": (_cubic, 4), "bilinear": (_triangle, 2), "area": (_box, 1)}


def resize_taps(size: int, scale: float, edges: str, kernel: str = "bicubic") -> tuple[np.ndarray, np.ndarray]:
    """Returns input indices (int) and weights (float64) of each output pixel of an axis, `[ceil(size·scale), taps]`."""
    weigh, support = _KERNELS[kernel]
    out = math.ceil(size * scale)
    stretch = min(scale, 1)
    width = support / stretch
    # Positions are 1-based, as in MATLAB, so that rounding errors match too.
    center = np.arange(1, out + 1) / scale + 0.5 * (1 - 1 / scale)
    position = np.floor(center - width / 2)[:, None] + np.arange(math.ceil(width) + 2)
    weight = stretch * weigh(stretch * (center[:, None] - position))
    weight /= weight.sum(1, keepdims=True)
    index = position.astype(int) - 1
    if edges == "clamp":
        return index.clip(0, size - 1), weight
    index %= 2 * size
    return np.where(index < size, index, 2 * size - 1 - index), weight


def _resize_rows(image: np.ndarray, scale: float, edges: str) -> np.ndarray:
    rows = image.reshape(len(image), -1)
    indices, weights = resize_taps(len(image), scale, edges)
    resized = np.empty((len(indices), rows.shape[1]), np.uint8)
    # One output row at a time: the input rows it depends on fit in the CPU cache as float64, the whole image does not.
    for row, index, weight in zip(resized, indices, weights, strict=True):
        # MATLAB rounds half up; np.round rounds half to even.
        row[:] = np.floor(weight @ rows[index].astype(np.float64) + 0.5).clip(0, 255)
    return resized.reshape(len(indices), *image.shape[1:])


def matlab_bicubic(image: np.ndarray, scale: float, *, edges: Literal["clamp", "mirror"] = "clamp") -> np.ndarray:
    """Resizes an image exactly as MATLAB's `imresize(image, scale, 'bicubic')`, with antialiasing when downscaling.

    Args:
      image: uint8 `[H, W]` or `[H, W, C]`.
      scale: the factor for both sides, for example 1/4 or 4.
      edges: how the image is extended beyond its border. `"clamp"` repeats the edge pixel, like the MATLAB version that
        created the benchmark sets; `"mirror"` reflects the image, like newer versions.

    Returns:
      uint8 `[ceil(H · scale), ceil(W · scale)]` or `[ceil(H · scale), ceil(W · scale), C]`.

    Raises:
      ValueError: `image` has a different dtype or number of dimensions or no pixels, `scale` is not positive and
        finite, or `edges` is unknown.
    """
    image = np.asarray(image)  # JAX would compute in float32
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ValueError(f"expected uint8 [H, W] or [H, W, C], got {image.dtype} {list(image.shape)}")
    if not image.size:
        raise ValueError(f"expected an image with at least one pixel, got {list(image.shape)}")
    if not 0 < scale < math.inf:
        raise ValueError(f"scale is {scale}, but must be positive and finite")
    if edges not in ("clamp", "mirror"):
        raise ValueError(f"edges={edges!r} is unknown: choose 'clamp' or 'mirror'")
    rows_done = _resize_rows(image, scale, edges)
    return np.ascontiguousarray(_resize_rows(rows_done.swapaxes(0, 1), scale, edges).swapaxes(0, 1))
