"""Which weights an image is upscaled with: those for clean images, or those for JPEG photographs.

Importing this module must stay fast: `a2f --help` needs it.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from a2f_jax.images.decoding import Picture
    from a2f_jax.upscaling.upscaler import Upscaler

CLEAN_FROM = 86
"""Quality of JPEG from which an image counts as clean.

On the held-out photographs (`benchmarks/photo.py`), the weights for JPEG photographs gain 0.2 dB (×4) to 0.5 dB (×2) at
86, and nothing at about 90. LPIPS prefers them from 92 down at ×3 and ×4, but at ×2, where they smooth more, only from
a quality between 80 and 60; at 86, its mean over the scales is a little better. In doubt, an image counts as clean.
"""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Weights that images can be upscaled with.

    Attributes:
      name: their name in messages and reports.
      make_upscaler: creates the upscaler of a device. It is called when an image first needs it, with the keyword
        arguments `device` and `concurrent`, such as `Model.upscaler`, or a `functools.partial` of it with further
        options.
    """

    name: str
    make_upscaler: Callable[..., "Upscaler"]


@dataclasses.dataclass(frozen=True)
class Choice:
    """The weights to choose from for each image.

    Attributes:
      scale: the scale of all of them.
      clean: those for clean images.
      photo: those for JPEG files of a quality below `CLEAN_FROM`. None: `clean` are for all images.
    """

    scale: int
    clean: Candidate
    photo: Candidate | None = None

    def of(self, picture: "Picture") -> Candidate:
        """Returns the weights for an image."""
        quality = picture.jpeg_quality
        return self.photo if self.photo and quality and quality < CLEAN_FROM else self.clean


def describe_source(picture: "Picture") -> str:
    """Returns what the choice depends on, such as `"JPEG of quality 60"` or `"PNG"`."""
    return f"JPEG of quality {picture.jpeg_quality}" if picture.jpeg_quality else picture.format
