"""Images in memory, as Pillow represents them, to and from pictures."""

import numpy as np
from PIL import Image

from a2f_jax.images.decoding import Picture, samples_8_bit

_GRAY = ("1", "L", "LA", "La")
_COLOR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr")


def from_pil(image: Image.Image) -> Picture:
    """Returns the pixels of a Pillow image as a `Picture` without metadata.

    The pixels stay as they are: neither an EXIF orientation nor a color profile is applied.

    Args:
      image: an image of mode 1, L, LA, P, PA, RGB, RGBA, RGBX, YCbCr or I;16. Transparency that is not in the
        mode, such as that of a palette, is recognized.

    Raises:
      ValueError: the image has another mode.
    """
    if image.mode.startswith("I;16"):
        deep = np.asarray(image).astype(np.uint16)[..., None]
        return Picture(np.broadcast_to(deep, (*deep.shape[:2], 3)), gray=True)
    if image.mode not in (*_GRAY, *_COLOR):
        raise ValueError(f"cannot upscale a PIL image of mode {image.mode}: convert it to L, LA, RGB or RGBA first")
    samples, gray = samples_8_bit(image), image.mode in _GRAY
    transparent = samples.shape[-1] in (2, 4)
    colors = samples[..., :-1] if transparent else samples
    return Picture(
        np.broadcast_to(colors, (*colors.shape[:2], 3)), alpha=samples[..., -1] if transparent else None, gray=gray
    )


def to_pil(samples: np.ndarray) -> Image.Image:
    """Returns a Pillow image of mode L, LA, RGB or RGBA, or I;16 for 16-bit grayscale.

    Args:
      samples: uint8 `[H, W, 1..4]` or uint16 `[H, W, 1]`.
    """
    return Image.fromarray(samples[..., 0] if samples.shape[-1] == 1 else samples)
