"""Winograd's algorithm compared with XLA's convolution."""

import jax
import numpy as np
import pytest

from a2f_jax.models import winograd


@pytest.mark.parametrize("width", [8, 9, 10, 11])
@pytest.mark.parametrize(("fan_in", "out"), [(4, 16), (16, 4)])
def test_winograds_algorithm_computes_the_convolution(width, fan_in, out):
    rng = np.random.default_rng(width)
    x = rng.normal(size=(2, 7, width, fan_in)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, fan_in, out)).astype(np.float32)
    want = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )
    have = winograd.convolve_valid(x, winograd.transform_kernel(kernel))
    assert have.shape == (2, 5, width - 2, out)
    np.testing.assert_allclose(have, want, atol=1e-4)
