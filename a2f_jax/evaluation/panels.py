"""Pictures that set results side by side."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from a2f_jax.evaluation.metrics import psnr_y, ssim_y

_INK = (32, 32, 36)
_FAINT = (110, 110, 118)


def _caption_scores(image: np.ndarray, truth: np.ndarray, shave: int) -> str:
    psnr = psnr_y(image, truth, shave)
    return "PSNR / SSIM" if math.isinf(psnr) else f"{psnr:.2f} dB / {ssim_y(image, truth, shave):.4f}"


def _font_size(lines: Sequence[str], width: int) -> int:
    """The largest size up to a fifteenth of the width (or 14) in which every line fits the width."""
    size = max(14, width // 15)
    while size > 8 and any(ImageFont.load_default(size).getlength(line) > width for line in lines):
        size -= 1
    return size


def side_by_side(
    panels: Sequence[tuple[str, np.ndarray]],
    *,
    truth: np.ndarray | None = None,
    shave: int = 0,
    crop: tuple[int, int, int, int] | None = None,
    enlarge: int = 1,
) -> Image.Image:
    """Sets the same place of several images side by side, a caption under each, on white.

    Args:
      panels: caption and image (uint8 `[H, W, 3]`), from left to right. A caption may have several lines, of
        ASCII and ×, which is written as x.
      truth: uint8 `[H, W, 3]`. If given, each caption gets a last line with PSNR and SSIM of the whole image
        against it, and the panel that equals the truth gets these words instead of figures.
      shave: pixels left out at each side by PSNR and SSIM, by convention the scale.
      crop: `(left, top, right, bottom)` in pixels; without it the whole image is shown.
      enlarge: how many pixels wide and high each pixel is drawn.

    Returns:
      The picture, RGB.

    Raises:
      ValueError: there are no panels, their images differ in shape, or the crop lies outside them.
    """
    if not panels or len({image.shape for _, image in panels}) != 1:
        raise ValueError(f"panels must have images of one shape, got {[image.shape for _, image in panels]}")
    height, width, _ = panels[0][1].shape
    left, top, right, bottom = crop or (0, 0, width, height)
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError(f"crop {crop} is not inside an image of {width}×{height}")
    panel_width, panel_height = (right - left) * enlarge, (bottom - top) * enlarge

    captions = []
    for caption, image in panels:
        # Pillow's own font, which is there on every machine, has no ×.
        lines = caption.replace("×", "x").splitlines()
        captions.append(lines if truth is None else [*lines, _caption_scores(image, truth, shave)])
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
