"""Images drawn side by side, with captions."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from a2f_jax.evaluation.metrics import psnr_y, ssim_y

NARROWEST = 4
"""The largest ratio of the sides of a crop that leaves room for captions."""

_INK = (32, 32, 36)
_FAINT = (110, 110, 118)


def _caption_scores(image: np.ndarray, truth: np.ndarray, shave: int) -> str:
    psnr = psnr_y(image, truth, shave)
    return "PSNR / SSIM" if math.isinf(psnr) else f"{psnr:.2f} dB / {ssim_y(image, truth, shave):.4f}"


def _font_size(lines: Sequence[str], width: int) -> int:
    size = max(14, width // 15)
    while size > 8 and any(ImageFont.load_default(size).getlength(line) > width for line in lines):
        size -= 1
    return size


def side_by_side(
    panels: Sequence[tuple[str, np.ndarray]],
    *,
    truth: np.ndarray,
    shave: int,
    crop: tuple[int, int, int, int] | None = None,
    enlarge: int = 1,
) -> Image.Image:
    """Draws the same region of several images side by side on white, each with a caption below.

    Args:
      panels: caption and image (uint8 RGB `[H, W, 3]`) of each panel, from left to right. A caption may have several
        lines of ASCII characters; × is drawn as x.
      truth: the ground truth, uint8 RGB `[H, W, 3]`. Each caption ends with the PSNR and SSIM of the whole image; a
        panel that equals the ground truth shows "PSNR / SSIM" instead of numbers.
      shave: the number of border pixels that PSNR and SSIM ignore, by convention the scale.
      crop: the region to show, `(left, top, right, bottom)` in pixels (default: the whole image).
      enlarge: the side of the square that each pixel is drawn as, in pixels.

    Returns:
      The drawing, in RGB mode.

    Raises:
      ValueError: there are no panels, their images differ in shape, or the crop does not lie inside them.
    """
    if not panels or len({image.shape for _, image in panels}) != 1:
        raise ValueError(f"all panels must have the same shape, got {[list(image.shape) for _, image in panels]}")
    height, width, _ = panels[0][1].shape
    left, top, right, bottom = crop or (0, 0, width, height)
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError(f"the crop {crop} does not lie inside the image of {width}×{height}")
    panel_width, panel_height = (right - left) * enlarge, (bottom - top) * enlarge

    captions = []
    for caption, image in panels:
        # Pillow's built-in font, the only one that every machine has, lacks the character ×.
        captions.append([*caption.replace("×", "x").splitlines(), _caption_scores(image, truth, shave)])
    font_size = _font_size([line for lines in captions for line in lines], panel_width)
    font = ImageFont.load_default(font_size)
    line_height = round(font_size * 1.35)
    gap = max(8, panel_width // 24)
    caption_top = gap + panel_height + gap // 2

    size = (
        gap + len(panels) * (panel_width + gap),
        caption_top + max(map(len, captions)) * line_height + gap // 2,
    )
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    for i, ((_, image), lines) in enumerate(zip(panels, captions, strict=True)):
        x = gap + i * (panel_width + gap)
        panel = Image.fromarray(image[top:bottom, left:right])
        picture.paste(panel.resize((panel_width, panel_height), Image.Resampling.NEAREST), (x, gap))
        for j, line in enumerate(lines):
            position = (x + panel_width / 2, caption_top + j * line_height)
            draw.text(position, line, _INK if j == 0 else _FAINT, font, anchor="ma")
    return picture
