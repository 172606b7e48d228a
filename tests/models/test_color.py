"""Color for luma networks, against the metrics' luma and against MATLAB's bicubic interpolation of 8-bit images."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2f_jax.data import matlab_bicubic
from a2f_jax.evaluation.metrics import luma
from a2f_jax.models.color import LumaNetwork, bicubic, rgb_to_ycbcr, ycbcr_to_rgb
from a2f_jax.models.layers import abstract_variables
from a2f_jax.models.registry import PEERS


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)


def test_luma_is_that_of_the_metrics(image):
    np.testing.assert_allclose(rgb_to_ycbcr(jnp.float32(image))[..., 0], luma(image), atol=1e-3)


def test_gray_has_no_chroma_and_colors_return(image):
    np.testing.assert_allclose(rgb_to_ycbcr(jnp.full((1, 1, 3), 77.0))[..., 1:], 128, atol=1e-3)
    np.testing.assert_allclose(ycbcr_to_rgb(rgb_to_ycbcr(jnp.float32(image))), image, atol=1e-3)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_is_matlabs_but_for_its_rounding(image, scale):
    image = image // 2 + 64  # MATLAB also clips after either axis, which noise of full contrast would run into
    have = bicubic(jnp.float32(image)[None], scale)[0]
    # MATLAB rounds after either axis: the first half a level, spread by a kernel of absolute sum 1.25, and the second.
    np.testing.assert_allclose(have, matlab_bicubic(image, scale), atol=0.5 * 1.25 + 0.5 + 1e-3)


@pytest.mark.parametrize("name", [name for name in PEERS if PEERS[name].luma])
def test_colors_are_computed_in_full_precision(name):
    """Accelerators multiply matrices in lower precision by default."""
    network = PEERS[name].make(PEERS[name].scales[0])
    lr = jnp.zeros((1, 16, 16, 3))
    program = str(jax.make_jaxpr(network.apply)(abstract_variables(network, *lr.shape), lr))
    products = re.findall(r"dot_general\[.*?\n *\]", program, re.DOTALL)
    assert products
    assert all("HIGHEST" in product for product in products)


class Interpolation(LumaNetwork):
    """Gives the bicubic interpolation of Y."""

    def luma(self, y):
        return bicubic(y, self.scale)


class Nothing(LumaNetwork):
    """Gives the enlarged Y back."""

    enlarged = True

    def luma(self, y):
        return y


@pytest.mark.parametrize("kind", [Interpolation, Nothing])
def test_a_luma_network_sees_luma_and_leaves_chroma_interpolated(image, kind):
    lr = jnp.float32(image)[None]
    np.testing.assert_allclose(kind(2).apply({}, lr), bicubic(lr, 2), atol=1e-2)
