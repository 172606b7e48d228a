"""The choice of the convolution algorithm, and that both give the same results and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2f_jax.models import convolution

pytestmark = pytest.mark.usefixtures("quick_compilation")


def native(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize(("fan_in", "out"), [(16, 128), (128, 16), (16, 48), (32, 27)])
@pytest.mark.parametrize("size", [(1, 1), (6, 9)])
def test_result_and_gradients_are_those_of_a_convolution(fan_in, out, size):
    rng = np.random.default_rng(0)
    x, kernel, cotangent = (
        rng.standard_normal(shape, np.float32) for shape in ((2, *size, fan_in), (3, 3, fan_in, out), (2, *size, out))
    )
    want, want_back = jax.vjp(native, x, kernel)
    have, have_back = jax.vjp(functools.partial(convolution.convolve, winograd=True), x, kernel)
    # Sums of up to 1152 products of magnitude 1, in a different order and with Winograd's factors of up to 8.
    np.testing.assert_allclose(have, want, atol=5e-4)
    for have_part, want_part in zip(have_back(cotangent), want_back(cotangent), strict=True):
        np.testing.assert_allclose(have_part, want_part, atol=5e-4)


def test_narrow_images_keep_their_zero_padding():
    x, kernel = jnp.ones((1, 1, 1, 16)), jnp.ones((3, 3, 16, 128))
    np.testing.assert_allclose(
        convolution.convolve(x, kernel, winograd=True), 16, rtol=1e-6
    )  # the 8 neighbors are zero


@pytest.mark.parametrize(
    ("platform", "dtype", "expected"), [("cpu", "float32", True), ("cpu", "bfloat16", False), ("gpu", "float32", False)]
)
def test_only_float32_on_a_cpu_prefers_winograd(platform, dtype, expected):
    assert convolution.prefers_winograd(platform, dtype) == expected


@pytest.mark.parametrize("winograd", [True, False])
def test_the_caller_chooses_the_algorithm_not_the_backend(winograd):
    trace = jax.make_jaxpr(lambda x, kernel: convolution.convolve(x, kernel, winograd=winograd))
    program = str(trace(jnp.ones((1, 4, 4, 16)), jnp.ones((3, 3, 16, 128))))
    assert ("conv_general_dilated" not in program) == winograd
