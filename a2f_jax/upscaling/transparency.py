"""Transparency: the colors under transparent pixels, and areas that stay fully transparent or fully opaque."""

import numpy as np
import scipy.ndimage

_ROWS = 256
"""Rows that are processed at a time, an even number. It bounds the memory that intermediate values take."""


def extend_colors(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Replaces the colors of fully transparent pixels with those of visible pixels nearby.

    Image editors store arbitrary colors, often black, where nothing is visible. A network that looks at the
    neighborhood of each pixel would let them bleed into the visible pixels.

    Visible colors are averaged in 2×2 blocks, weighted by alpha, again and again until every block has a color. Each
    transparent pixel takes the color of the smallest block that contains it and a visible pixel.

    Args:
      pixels: uint8 or uint16 `[H, W, C]`.
      alpha: `[H, W]` of the same dtype.

    Returns:
      `[H, W, C]` of the same dtype. Visible pixels are unchanged; so is an image without any.
    """
    visible = alpha.astype(bool)
    if visible.all() or not visible.any():
        return pixels
    height, width = alpha.shape
    blocks = extend_colors(*_halved(pixels, alpha))
    extended = pixels.copy()
    for top in range(0, height, _ROWS):
        rows = slice(top, top + _ROWS)
        nearby = blocks[top // 2 : (top + _ROWS) // 2].repeat(2, 0).repeat(2, 1)
        hidden = ~visible[rows]
        extended[rows][hidden] = nearby[: len(hidden), :width][hidden]
    return extended


def _halved(pixels: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    height, width = (-(-side // 2) for side in alpha.shape)
    mean_color = np.empty((height, width, pixels.shape[-1]), pixels.dtype)
    mean_alpha = np.empty((height, width), alpha.dtype)
    for top in range(0, alpha.shape[0], _ROWS):
        rows = slice(top // 2, (top + _ROWS) // 2)
        weight = alpha[top : top + _ROWS].astype(np.float32)[..., None]
        total = _block_sums(weight)
        mean = _block_sums(weight * pixels[top : top + _ROWS]) / np.maximum(total, 1)
        mean_color[rows] = np.rint(mean)
        mean_alpha[rows] = np.ceil(total[..., 0] / 4)  # a block with anything visible in it is visible
    return mean_color, mean_alpha


def _block_sums(values: np.ndarray) -> np.ndarray:
    height, width, _ = values.shape
    values = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)))
    return values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2]


class AlphaLimits:
    """Keeps areas of an enlarged image fully transparent or fully opaque where the original has no edge nearby.

    The network reproduces flat areas only approximately, mostly at the border of the image. In a photograph that is
    invisible; in alpha it would be a veil over what should be transparent.
    """

    def __init__(self, alpha: np.ndarray):
        """Finds the pixels of the original that are as transparent or opaque as all of their 8 neighbors.

        Args:
          alpha: uint8 or uint16 `[H, W]`.
        """
        levels = np.iinfo(alpha.dtype).max
        self._transparent = scipy.ndimage.maximum_filter(alpha, 3) == 0
        self._opaque = scipy.ndimage.minimum_filter(alpha, 3) == levels

    def apply(self, strip: np.ndarray, top: int, height: int, width: int) -> np.ndarray:
        """Limits a strip of the enlarged alpha.

        Args:
          strip: float32 `[h, width]` in 0..255.
          top: row of the enlarged image where the strip begins.
          height: height of the enlarged image.
          width: width of the enlarged image.

        Returns:
          The strip, clipped to 0..255 and equal to 0 or 255 where the original requires it.
        """

        def within(area: np.ndarray) -> np.ndarray:
            # A pixel of the enlarged image overlaps at most two of the original in each direction.
            y, x = np.arange(top, top + len(strip)), np.arange(width)
            (h, w) = area.shape
            rows = area[y * h // height] & area[((y + 1) * h - 1) // height]
            return rows[:, x * w // width] & rows[:, ((x + 1) * w - 1) // width]

        limited = np.clip(strip, 0, 255)
        limited[within(self._transparent)] = 0
        limited[within(self._opaque)] = 255
        return limited
