"""The limits on what an image file may declare."""

from a2f_jax.errors import UserError

PIXEL_LIMIT = 200_000_000
"""Largest number of pixels that an image may declare. A few bytes can declare billions, which would exhaust memory."""


def check_size(name: str, width: int, height: int, limit: int, frames: int) -> None:
    """Checks the size that a file declares, before its pixels are decoded.

    Args:
      name: name of the file, for messages.
      width: width in pixels.
      height: height in pixels.
      limit: largest number of pixels allowed.
      frames: number of images in the file.

    Raises:
      UserError: the image has more pixels than allowed, or the file has several images.
    """
    if width * height > limit:
        raise UserError(
            f"{name} declares {width}×{height} pixels, more than the pixel limit of {limit}: pass a larger limit "
            "to allow it, or crop the image",
            parameter="pixel_limit",
        )
    if frames > 1:
        raise UserError(f"{name} has {frames} frames: save the frame to upscale as a separate image")
