"""Weight normalization, initialization and pixel shuffle."""

import jax
import jax.numpy as jnp
import numpy as np

from a2f_jax.models.layers import Conv, normalized_kernel, pixel_shuffle


def test_a_normalized_kernel_has_the_norms_g_and_the_directions_v():
    v = jax.random.normal(jax.random.key(0), (3, 3, 4, 5))
    g = jnp.arange(1.0, 6.0)
    kernel = np.asarray(normalized_kernel(v, g)).reshape(-1, 5)
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), g, rtol=1e-6)
    cosine = (kernel * np.asarray(v).reshape(-1, 5)).sum(0) / g / np.linalg.norm(np.asarray(v).reshape(-1, 5), axis=0)
    np.testing.assert_allclose(cosine, 1, rtol=1e-6)


def test_weight_normalization_is_initialized_as_the_identity():
    params = Conv(7).init(jax.random.key(0), jnp.zeros((1, 8, 8, 4)))["params"]
    np.testing.assert_allclose(normalized_kernel(params["v"], params["g"]), params["v"], rtol=1e-6)


def test_initial_weights_have_the_range_of_pytorchs_default():
    params = Conv(128).init(jax.random.key(0), jnp.zeros((1, 8, 8, 16)))["params"]
    bound = (9 * 16) ** -0.5
    for values in (params["v"], params["bias"]):
        assert np.abs(values).max() <= bound
        np.testing.assert_allclose(np.std(values), bound / 3**0.5, rtol=0.2)  # loose because there are only 128 biases


def test_pixel_shuffle_uses_the_channel_order_of_espcn():
    channels = jnp.arange(12.0).reshape(1, 1, 1, 12)
    shuffled = pixel_shuffle(channels, 2)
    # Color 0 comes from channels 0..3: (dy, dx) = (0, 0), (0, 1), (1, 0), (1, 1).
    np.testing.assert_array_equal(shuffled[0, :, :, 0], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(shuffled[0, :, :, 2], [[8, 9], [10, 11]])
