"""Resizing of an image that arrives in horizontal strips."""

import math
from collections.abc import Iterator

import numpy as np
from PIL import Image

_SUPPORT = 3
"""Radius of the Lanczos kernel, in pixels of the coarser of both images."""


def resize_strips(strips: Iterator[np.ndarray], height: int, shape: tuple[int, int]) -> Iterator[np.ndarray]:
    """Resizes an image with Pillow's antialiased Lanczos filter, holding only the rows that are still needed.

    Args:
      strips: the image from top to bottom, each `[h, width, C]`, float32.
      height: height of the image, the sum of all h.
      shape: height and width of the result.

    Yields:
      The result from top to bottom, each `[h, shape[1], C]`, float32. It equals that of the whole image up to rounding.
    """
    step = height / shape[0]
    support = _SUPPORT * max(step, 1)
    rows: np.ndarray | None = None  # those from `first` on, resized horizontally
    first = done = 0
    for strip in strips:
        new = _resize(strip, (shape[1], len(strip)))
        rows = new if rows is None else np.concatenate([rows, new])
        received = first + len(rows)
        # Row y of the result is the weighted mean of the rows around its center, (y + 0.5) · step. One more row on each
        # side allows for the rounding of that position.
        ready = shape[0] if received == height else math.floor((received - support - 1) / step - 0.5) + 1
        if ready > done:
            box = (0, done * step - first, shape[1], min(ready * step - first, len(rows)))
            yield _resize(rows, (shape[1], ready - done), box)
            done = ready
        needed = max(math.floor((done + 0.5) * step - support) - 1, first)
        rows, first = rows[needed - first :], needed


def _resize(
    image: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    channels = np.moveaxis(image, -1, 0)
    resized = [Image.fromarray(np.ascontiguousarray(c)).resize(size, Image.Resampling.LANCZOS, box) for c in channels]
    return np.stack([np.asarray(channel) for channel in resized], -1)
