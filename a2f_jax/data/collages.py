"""Collages of photographs: training images with more edges, lettering, and regular patterns than a few photographs.

Shapes that cover each other, and whose radii r have a density proportional to r⁻³, are known as the "dead leaves" model
of natural images (A. B. Lee, D. Mumford, and J. Huang, "Occlusion models for natural images", IJCV 2001). Here they are
filled with parts of photographs, and with colors, gradients, gratings, and letters in the colors of photographs.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

COLLAGE_SIDE = 1024
"""Height and width of a collage in pixels."""

PHOTOGRAPHS = 16
"""How many photographs the parts of a collage come from, if there are as many."""

# Collages are drawn this many times larger and then reduced, which smooths the edges of shapes and letters.
_OVERSAMPLING = 2
_SHAPES = 1200
_RADII = (10, 400)  # in pixels of the collage
_GRATING_PERIODS = (7, 60)
_LETTER_SIZES = (12, 70)
_LETTERS = list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789        .,-")

_Draw = Callable[[np.random.Generator, Sequence[Image.Image], int, int], Image.Image]


def draw_collage(photographs: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Draws a collage.

    Args:
      photographs: at least one, uint8 `[h, w, 3]`.
      rng: chooses the shapes, and what they are filled with.

    Returns:
      uint8 `[COLLAGE_SIDE, COLLAGE_SIDE, 3]`.
    """
    images = [Image.fromarray(photograph) for photograph in photographs]
    side = _OVERSAMPLING * COLLAGE_SIDE
    canvas = _photograph(rng, images, side, side)
    draws = [fill.draw for fill in _FILLS]
    odds = [fill.probability for fill in _FILLS]
    for _ in range(_SHAPES):
        mask = _shape(rng, _OVERSAMPLING * _radius(rng, *_RADII))
        left, top = (int(x) for x in rng.integers(-mask.width // 2, side - mask.width // 2, 2))
        draw = draws[rng.choice(len(draws), p=odds)]
        canvas.paste(draw(rng, images, *mask.size), (left, top), mask)
    return np.asarray(canvas.reduce(_OVERSAMPLING))


def random_part(photograph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns a part of a photograph that is at most as large as a collage.

    Args:
      photograph: uint8 `[h, w, 3]`.
      rng: chooses where the part is.
    """
    top, left = (int(rng.integers(max(side - COLLAGE_SIDE, 0) + 1)) for side in photograph.shape[:2])
    # A copy, so that the rest of a large photograph can be freed.
    return photograph[top : top + COLLAGE_SIDE, left : left + COLLAGE_SIDE].copy()


def _radius(rng: np.random.Generator, smallest: float, largest: float) -> float:
    # The inverse of the cumulative distribution of the density r⁻³.
    return float((smallest**-2 - rng.random() * (smallest**-2 - largest**-2)) ** -0.5)


def _logarithmic(rng: np.random.Generator, smallest: float, largest: float) -> float:
    return float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))


def _shape(rng: np.random.Generator, radius: float) -> Image.Image:
    """Returns a mask with an ellipse, a rectangle, a polygon, or a bar, in any direction."""
    kind = rng.choice(["ellipse", "rectangle", "polygon", "bar"])
    angle, flatness = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 1)
    if kind == "ellipse":
        turns = np.linspace(0, 2 * np.pi, 128, endpoint=False)
        x, y = np.cos(turns), flatness * np.sin(turns)
    elif kind == "polygon":
        turns = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 9)))
        distances = rng.uniform(0.4, 1, turns.size)
        x, y = distances * np.cos(turns), distances * np.sin(turns)
    else:
        length, width = (0.8, 0.7 * flatness) if kind == "rectangle" else (0.98, rng.uniform(0.015, 0.14))
        x, y = length * np.array([-1, 1, 1, -1]), width * np.array([-1, -1, 1, 1])
    cos, sin = np.cos(angle), np.sin(angle)
    side = int(2 * radius) + 2
    corners = radius * np.stack([cos * x - sin * y, sin * x + cos * y], axis=1) + side / 2
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in corners], 255)
    return mask


def _photograph(rng: np.random.Generator, photographs: Sequence[Image.Image], width: int, height: int) -> Image.Image:
    """Returns a part of a photograph, rotated by any angle, and at 0.5 to 1 of its size in the collage."""
    photograph = _any_of(rng, photographs)
    zoom, angle = _OVERSAMPLING * rng.uniform(0.5, 1), rng.uniform(0, 2 * np.pi)
    x, y = (int(rng.uniform(0.2, 0.8) * side) for side in photograph.size)
    half = math.ceil(math.hypot(width, height) / zoom / 2) + 4
    inside = (max(x - half, 0), max(y - half, 0), min(x + half, photograph.width), min(y + half, photograph.height))
    margins = (inside[1] - y + half, y + half - inside[3]), (inside[0] - x + half, x + half - inside[2]), (0, 0)
    square = Image.fromarray(np.pad(np.asarray(photograph.crop(inside)), margins, "symmetric"))
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    rows = (cos, sin, half - (cos * width + sin * height) / 2), (-sin, cos, half + (sin * width - cos * height) / 2)
    return square.transform((width, height), Image.Transform.AFFINE, [*rows[0], *rows[1]], Image.Resampling.BICUBIC)


def _any_of(rng: np.random.Generator, photographs: Sequence[Image.Image]) -> Image.Image:
    return photographs[int(rng.integers(len(photographs)))]


def _color(rng: np.random.Generator, photographs: Sequence[Image.Image]) -> tuple[int, ...]:
    photograph = _any_of(rng, photographs)
    pixel = photograph.getpixel((int(rng.integers(photograph.width)), int(rng.integers(photograph.height))))
    assert isinstance(pixel, tuple)  # RGB
    return pixel


def _flat(rng: np.random.Generator, photographs: Sequence[Image.Image], width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), _color(rng, photographs))


def _mixture(rng: np.random.Generator, photographs: Sequence[Image.Image], share: np.ndarray) -> Image.Image:
    first, second = (np.array(_color(rng, photographs), np.float32) for _ in range(2))
    return Image.fromarray(np.round(first + (second - first) * share[..., None]).astype(np.uint8))


def _gradient(rng: np.random.Generator, photographs: Sequence[Image.Image], width: int, height: int) -> Image.Image:
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.ogrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j]
    return _mixture(rng, photographs, np.clip(0.5 + np.cos(angle) * x + np.sin(angle) * y, 0, 1))


def _grating(rng: np.random.Generator, photographs: Sequence[Image.Image], width: int, height: int) -> Image.Image:
    """Returns waves or stripes, or the product of two such patterns at right angles."""
    angle = rng.uniform(0, 2 * np.pi)
    frequency = 2 * np.pi / (_OVERSAMPLING * _logarithmic(rng, *_GRATING_PERIODS))
    y, x = np.ogrid[:height, :width]
    wave = np.sin(frequency * (np.cos(angle) * x + np.sin(angle) * y) + rng.uniform(0, 2 * np.pi))
    if rng.random() < 0.3:
        wave = wave * np.sin(frequency * (np.cos(angle) * y - np.sin(angle) * x))
    stripes = rng.random() < 0.6
    return _mixture(rng, photographs, (wave > rng.uniform(-0.6, 0.6)).astype(int) if stripes else (1 + wave) / 2)


def _letters(rng: np.random.Generator, photographs: Sequence[Image.Image], width: int, height: int) -> Image.Image:
    """Returns lines of random letters, most of them horizontal."""
    paper, ink = _color(rng, photographs), _color(rng, photographs)
    size = _OVERSAMPLING * _logarithmic(rng, *_LETTER_SIZES)
    font = ImageFont.load_default(size)
    image = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(image)
    for y in np.arange(-rng.uniform(0, size), height, 1.2 * size):
        line = "".join(rng.choice(_LETTERS, int(3 * width / size) + 3))
        draw.text((-rng.uniform(0, size), float(y)), line, ink, font)
    angle = rng.choice([0, 0, 0, 90, rng.uniform(0, 360)])
    return image.rotate(float(angle), Image.Resampling.BICUBIC, fillcolor=paper)


class _Fill(NamedTuple):
    draw: _Draw
    probability: float


_FILLS = (
    _Fill(_photograph, 0.45),
    _Fill(_flat, 0.2),
    _Fill(_gradient, 0.12),
    _Fill(_grating, 0.13),
    _Fill(_letters, 0.1),
)
