import math
from fractions import Fraction

import numpy as np
import pytest

from a2f_jax.data import matlab_bicubic


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (12, 18, 3), dtype=np.uint8)


def _keys(x: Fraction) -> Fraction:
    x = abs(x)
    if x <= 1:
        return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
    return -Fraction(1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2 if x <= 2 else Fraction(0)


def _exact_rows(image: np.ndarray, scale: Fraction) -> np.ndarray:
    """Interpolates along the first axis in rational arithmetic, straight from the definition."""
    size = len(image)
    stretch = min(scale, Fraction(1))
    resized = []
    for i in range(math.ceil(size * scale)):
        center = (i + Fraction(1, 2)) / scale - Fraction(1, 2)
        weights: dict[int, Fraction] = {}
        for j in range(-3 * size, 4 * size):
            pixel = min(max(j, 0), size - 1)
            weights[pixel] = weights.get(pixel, Fraction(0)) + _keys(stretch * (center - j))
        total = sum(weights.values())
        row = sum(
            int(weight.numerator) * image[j].astype(object) * Fraction(1, weight.denominator)
            for j, weight in weights.items()
        )
        resized.append([min(max(math.floor(x / total + Fraction(1, 2)), 0), 255) for x in row.ravel()])
    return np.array(resized, np.uint8).reshape(-1, *image.shape[1:])


@pytest.mark.parametrize(
    "scale", [Fraction(1, 2), Fraction(1, 3), Fraction(1, 4), Fraction(2), Fraction(3), Fraction(4)]
)
def test_the_result_equals_exact_arithmetic(image, scale):
    exact = _exact_rows(_exact_rows(image, scale).swapaxes(0, 1), scale).swapaxes(0, 1)
    np.testing.assert_array_equal(matlab_bicubic(image, float(scale)), exact)


def test_the_vertical_pass_comes_first(image):
    horizontal_first = matlab_bicubic(image.swapaxes(0, 1), 1 / 3).swapaxes(0, 1)
    assert (matlab_bicubic(image, 1 / 3) != horizontal_first).any()


@pytest.mark.parametrize(("edges", "padding"), [("clamp", "edge"), ("mirror", "symmetric")])
@pytest.mark.parametrize("scale", [1 / 2, 1 / 3, 3])
def test_the_edges_are_extended_as_by_padding(image, edges, padding, scale):
    wide = np.pad(image, ((6, 6), (6, 6), (0, 0)), padding)
    border = round(6 * scale)
    inside = matlab_bicubic(wide, scale, edges=edges)[border:-border, border:-border]
    np.testing.assert_array_equal(matlab_bicubic(image, scale, edges=edges), inside)


def test_mirroring_works_for_images_smaller_than_the_kernel():
    tiny = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    wide = np.pad(tiny, ((8, 8), (12, 12)), "symmetric")
    np.testing.assert_array_equal(
        matlab_bicubic(tiny, 1 / 4, edges="mirror"), matlab_bicubic(wide[:, :], 1 / 4, edges="mirror")[2:3, 3:4]
    )


@pytest.mark.parametrize(
    ("size", "scale", "expected"), [((7, 9), 1 / 2, (4, 5)), ((10, 4), 1 / 3, (4, 2)), ((3, 5), 4, (12, 20))]
)
def test_the_size_is_rounded_up(size, scale, expected):
    assert matlab_bicubic(np.zeros(size, np.uint8), scale).shape == expected


def test_a_grayscale_image_is_resized_like_a_channel(image):
    np.testing.assert_array_equal(matlab_bicubic(image[..., 1], 1 / 2), matlab_bicubic(image, 1 / 2)[..., 1])


@pytest.mark.parametrize("value", [0, 255])
def test_overshoot_is_clipped(value):
    image = np.full((8, 8), value, np.uint8)
    image[4:] = 255 - value
    assert set(np.unique(matlab_bicubic(image, 4)[:8])) == {value}


@pytest.mark.parametrize(
    ("image", "edges"),
    [(np.zeros((4, 4), np.float32), "clamp"), (np.zeros(4, np.uint8), "clamp"), (np.zeros((4, 4), np.uint8), "wrap")],
)
def test_unsupported_arguments_are_refused(image, edges):
    with pytest.raises(ValueError, match=r"float32|\[4\]|wrap"):
        matlab_bicubic(image, 2, edges=edges)


@pytest.mark.parametrize("scale", [0, -2, math.nan, math.inf])
def test_a_scale_that_is_not_positive_and_finite_is_refused(scale, image):
    with pytest.raises(ValueError, match="must be positive and finite"):
        matlab_bicubic(image, scale)


def test_an_image_without_pixels_is_refused():
    with pytest.raises(ValueError, match="at least one pixel"):
        matlab_bicubic(np.zeros((0, 4, 3), np.uint8), 2)
