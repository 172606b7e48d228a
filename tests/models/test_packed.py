"""The network with packed rows, against the same network without."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2f_jax.models import packed
from a2f_jax.models.a2f import A2F, fold_weight_norm

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize(
    ("pack", "width", "options"),
    [
        (8, 24, {}),
        (4, 4, {"head_kernel": 7, "remat": True, "scale": 3}),
        (4, 8, {"head_kernel": 1, "attention": False}),
        (8, 16, {"head_kernel": 5, "auxiliary": False}),
        (8, 20, {}),  # not a multiple of 8: computed without packing
        (4, 8, {"depthwise": True}),
    ],
)
def test_packing_changes_neither_the_result_nor_the_gradient(random_params, pack, width, options):
    network = A2F(**{"scale": 2, "features": 6, "blocks": 2, **options})
    params = random_params(network)
    rng = np.random.default_rng(0)
    lr = rng.uniform(0, 255, (2, 9, width, 3)).astype(np.float32)
    weights = rng.normal(size=(2, 9 * network.scale, width * network.scale, 3))

    def value_and_gradients(network):
        def value(params, lr):
            sr = network.apply({"params": params}, lr)
            return jnp.sum(sr * weights), sr

        return jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True))(params, lr)

    (_, sr), gradients = value_and_gradients(network.clone(pack=pack))
    (_, expected), expected_gradients = value_and_gradients(network)
    np.testing.assert_allclose(sr, expected, atol=1e-3)  # on 0..255
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4 * np.abs(y).max()), gradients, expected_gradients
    )


def test_folded_parameters_and_initial_ones_are_the_same(random_params):
    network = A2F(scale=2, features=6, blocks=1, pack=4)
    params = random_params(network.clone(pack=1))
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda x: x.shape, shapes)
    lr = np.full((1, 8, 8, 3), 100, np.float32)
    folded = network.clone(weight_norm=False).apply({"params": fold_weight_norm(params)}, lr)
    np.testing.assert_allclose(folded, network.apply({"params": params}, lr), atol=1e-3)


def test_the_states_of_few_images_are_packed_on_a_tpu():
    assert packed.pixels_per_pack("tpu", features=16, images=4) == 8
    assert packed.pixels_per_pack("tpu", features=32, images=4) == 4
    assert packed.pixels_per_pack("tpu", features=16, images=256) == 1
    assert packed.pixels_per_pack("gpu", features=16, images=4) == 1
    assert packed.pixels_per_pack("tpu", features=200, images=4) == 1
