"""The quality of a JPEG file, estimated from its quantization table."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

LUMA_TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.int32,
)
"""Table K.1 of ITU-T T.81; rows are vertical frequencies."""


def scaled_table(table: Any, quality: Any, xp: Any) -> Any:
    """Returns the quantization table that libjpeg uses at a quality.

    That is a table for quality 50 multiplied by 50 / quality below 50, and by 2 − quality / 50 from there, rounded and
    limited to 1..255 (`jpeg_quality_scaling` and `jpeg_add_quant_table` of the Independent JPEG Group's `jcparam.c`).

    Args:
      table: integers, `LUMA_TABLE` or others that it can be broadcast with.
      quality: integers 1..100, which can be broadcast with the table.
      xp: the module that computes, `numpy` or `jax.numpy`.

    Returns:
      Integers of the shape that both broadcast to.
    """
    percent = xp.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return ((table * percent + 50) // 100).clip(1, 255)


@functools.cache
def _log_tables() -> np.ndarray:
    qualities = np.arange(1, 101)
    return np.log(scaled_table(LUMA_TABLE.ravel(), qualities[:, None], np))


def estimate_quality(table: Sequence[int]) -> int:
    """Returns the quality at which libjpeg's table for luma is closest to a table.

    Files of libjpeg and of what builds on it, such as Pillow, give the quality that they were saved with; its hundred
    tables differ. Cameras and Photoshop have tables of their own. The closest is that of the smallest mean squared
    difference of logarithms, because the error of a coefficient is proportional to its quantization step.

    Args:
      table: the 64 quantization steps for luma, row by row; rows are vertical frequencies.

    Returns:
      The quality, 1..100.
    """
    steps = np.maximum(table, 1)  # decoders accept zeros in a damaged file
    return 1 + int(((_log_tables() - np.log(steps)) ** 2).mean(1).argmin())
