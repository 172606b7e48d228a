"""What exists, by name: scales, benchmark sets and image file formats.

Imports nothing heavy, so that `a2f --help` answers at once.
"""

import dataclasses
from typing import NamedTuple

SCALES = (2, 3, 4)
"""The upscaling factors of the A2F family."""


class BenchmarkSet(NamedTuple):
    """A set of images that papers report scores on.

    Attributes:
      title: the name as papers print it.
      spellings: the names its folder has in the wild, in lower case.
    """

    title: str
    spellings: tuple[str, ...]


BENCHMARK_SETS = {
    "set5": BenchmarkSet("Set5", ("set5",)),
    "set14": BenchmarkSet("Set14", ("set14",)),
    "b100": BenchmarkSet("B100", ("b100", "bsd100", "bsds100")),
    "urban100": BenchmarkSet("Urban100", ("urban100",)),
    "manga109": BenchmarkSet("Manga109", ("manga109",)),
}
"""The benchmark sets, in the order of the paper's columns."""


@dataclasses.dataclass(frozen=True)
class Format:
    """What an image file format can hold.

    Attributes:
      suffixes: of its files, the usual one first.
      max_side: the largest width and height in pixels.
      sixteen_bit: whether it holds 16 bits per channel.
      alpha: whether it holds transparency.
      in_strips: whether it is written strip by strip, and so may be larger than memory.
    """

    suffixes: tuple[str, ...]
    max_side: int
    sixteen_bit: bool = False
    alpha: bool = True
    in_strips: bool = False


FORMATS = {
    "PNG": Format((".png",), 2**31 - 1, sixteen_bit=True, in_strips=True),
    "JPEG": Format((".jpg", ".jpeg"), 65500, alpha=False),
    "WEBP": Format((".webp",), 16383),
    "TIFF": Format((".tif", ".tiff"), 2**31 - 1, sixteen_bit=True, in_strips=True),
    "BMP": Format((".bmp",), 2**31 - 1, alpha=False),
    "AVIF": Format((".avif",), 65536),
}
"""The formats that images are written in, by Pillow's names."""

READABLE_SUFFIXES = (*(suffix for form in FORMATS.values() for suffix in form.suffixes), ".gif")
"""Suffixes of the image files that are looked for in folders, in lower case."""
