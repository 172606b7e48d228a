"""The layers of the compared networks against their definitions, written out in loops."""

import jax
import numpy as np
import pytest

from a2f_jax.models.peer_layers import (
    PlainConv,
    PReLU,
    ProjectionDown,
    ProjectionUp,
    TransposedConv,
    enlarge_bilinear,
    resize_bilinear,
)


def random_params(layer, shape):
    shapes = jax.eval_shape(layer.init, jax.random.key(0), np.zeros(shape, np.float32))["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("groups", [1, 4, 16])
def test_groups_are_convolutions_of_their_own(groups):
    layer = PlainConv(32, groups=groups)
    x = np.random.default_rng(0).normal(size=(2, 6, 5, 16)).astype(np.float32)
    params = random_params(layer, x.shape)
    whole = jax.lax.conv_general_dilated(
        x,
        params["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    want = np.asarray(whole) + params["bias"]
    np.testing.assert_allclose(layer.apply({"params": params}, x), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "stride", "crop", "extra"), [(9, 2, 4, 0), (9, 4, 4, 0), (17, 3, 8, -2), (3, 2, 0, 0), (4, 2, 1, 0)]
)
def test_a_transposed_convolution_adds_the_kernel_of_every_pixel(size, stride, crop, extra):
    x = np.random.default_rng(1).normal(size=(1, 4, 5, 2)).astype(np.float32)
    layer = TransposedConv(3, size, stride, crop=crop, extra=extra)
    params = random_params(layer, x.shape)
    height, width = 4 * stride + extra, 5 * stride + extra
    want = np.zeros((height, width, 3)) + params["bias"]
    for i in range(4):
        for j in range(5):
            for a in range(size):
                for b in range(size):
                    row, column = stride * i - crop + a, stride * j - crop + b
                    if 0 <= row < height and 0 <= column < width:
                        want[row, column] += x[0, i, j] @ params["kernel"][a, b]
    np.testing.assert_allclose(layer.apply({"params": params}, x)[0], want, atol=1e-3)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_projections_change_the_size_by_the_scale(scale):
    up, down = ProjectionUp(4, scale), ProjectionDown(4, scale)
    small, large = np.zeros((1, 5, 6, 4), np.float32), np.zeros((1, 5 * scale, 6 * scale, 4), np.float32)
    for layer, source, target in ((up, small, large), (down, large, small)):
        result = jax.eval_shape(lambda x, layer=layer: layer.init_with_output(jax.random.key(0), x)[0], source)
        assert result.shape == target.shape


def test_prelu_has_a_slope_below_zero_only():
    x = np.array([[-2.0, 3.0]], np.float32)
    slopes = {"params": {"slope": np.array([0.5, 0.5], np.float32)}}
    np.testing.assert_allclose(PReLU().apply(slopes, x), [[-1.0, 3.0]])


@pytest.mark.parametrize("size", [(14, 10), (21, 15), (33, 20)])
def test_bilinear_interpolation_is_that_of_jax(size):
    x = np.random.default_rng(0).normal(size=(2, 7, 5, 3)).astype(np.float32)
    want = jax.image.resize(x, (2, *size, 3), "bilinear", antialias=False)
    np.testing.assert_allclose(resize_bilinear(x, *size), want, atol=4e-6)  # a sum of four in float32


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bilinear_enlargement_by_a_whole_factor_is_the_same(scale):
    x = np.random.default_rng(0).normal(size=(2, 7, 5, 3)).astype(np.float32)
    want = jax.image.resize(x, (2, 7 * scale, 5 * scale, 3), "bilinear", antialias=False)
    np.testing.assert_allclose(enlarge_bilinear(x, scale), want, atol=4e-6)  # a sum of four in float32
