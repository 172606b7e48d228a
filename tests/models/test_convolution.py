"""The CPU's forms of convolution and their gradients against XLA's own convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2f_jax.models import convolution


def native(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize("form", [convolution._widen, convolution._narrow])
@pytest.mark.parametrize("shape", [(3, 3, 5, 7), (3, 3, 7, 5), (5, 5, 4, 6)])
def test_forms_and_gradients_are_those_of_a_convolution(form, shape):
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel = jax.random.normal(keys[0], (2, 6, 9, shape[2])), jax.random.normal(keys[1], shape)
    want, want_back = jax.vjp(native, x, kernel)
    have, have_back = jax.vjp(form, x, kernel)
    np.testing.assert_allclose(have, want, atol=1e-4)
    cotangent = jax.random.normal(keys[2], want.shape)
    for have_part, want_part in zip(have_back(cotangent), want_back(cotangent), strict=True):
        np.testing.assert_allclose(have_part, want_part, atol=2e-4)  # sums of up to 108 products in another order


def test_narrow_images_keep_their_zero_padding():
    x, kernel = jnp.ones((1, 1, 1, 16)), jnp.ones((3, 3, 16, 128))
    assert jnp.all(convolution.convolve(x, kernel) == 16)  # the 8 neighbours are zero


def test_large_products_of_channels_take_the_matrix_form_on_a_cpu(monkeypatch):
    def primitives(platform):
        monkeypatch.setattr(jax, "default_backend", lambda: platform)
        # A new function for each trace: JAX would remember the first.
        trace = jax.make_jaxpr(lambda *args: convolution.convolve(*args))  # noqa: PLW0108
        return str(trace(jnp.ones((1, 4, 4, 16)), jnp.ones((3, 3, 16, 128))))

    assert "conv_general_dilated" not in primitives("cpu")
    assert "conv_general_dilated" in primitives("gpu")
