"""Starting a run from existing weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2f_jax.model import Model, load, save
from a2f_jax.models.a2f import A2F, build
from a2f_jax.models.registry import PEERS
from a2f_jax.training.state import TrainState
from a2f_jax.training.warm_start import initialize_from


def test_published_weights_that_do_not_tell_their_scale_are_taken_for_that_of_the_run(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {"weights_conv1": (81, 64), "weights_conv2": (64, 25, 32), "weights_conv3": (32, 25)}
    shapes |= {f"biases_conv{i}": (n,) for i, n in ((1, 64), (2, 32), (3, 1))}
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    np.savez(tmp_path / "srcnn.npz", **tensors)  # named as in SRCNN's published file
    network = PEERS["srcnn"].make(2)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    state = TrainState(jnp.int32(0), jax.tree.map(lambda x: jnp.zeros(x.shape), shapes), None, ())
    lines = []
    params = initialize_from(str(tmp_path / "srcnn.npz"), state, 2, lines.append).params
    np.testing.assert_array_equal(params["conv1"]["bias"], tensors["biases_conv1"])
    assert lines == [f"Starting from {tmp_path / 'srcnn.npz'}"]  # without parameters that stay as they were


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_name_of_a_variant_stands_for_its_weights_of_the_scale_of_the_run(random_params, scale):
    params = random_params(build("a2f-sd", scale))
    lines = []
    found = initialize_from("a2f-sd", TrainState(jnp.int32(0), params, None, ()), scale, lines.append).params
    jax.tree.map(np.testing.assert_array_equal, found, load(f"a2f-sd-x{scale}").params)
    assert lines == ["Starting from a2f-sd"]


def test_a_run_starts_from_weights_in_a_bucket(bucket, random_params):
    network = build("a2f-s", 2)
    params = random_params(network)
    save(Model(network, params), f"{bucket}/weights/s.safetensors")
    start = TrainState(jnp.int32(0), jax.tree.map(jnp.zeros_like, params), None, ())
    lines = []
    found = initialize_from(f"{bucket}/weights/s.safetensors", start, 2, lines.append).params
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert lines == [f"Starting from {bucket}/weights/s.safetensors"]


@pytest.mark.parametrize(
    ("scale", "blocks", "head_kernel", "expected"),
    [
        (2, 4, 3, "block_02, block_03"),
        (2, 12, 3, "block_02 to block_11"),
        (2, 2, 5, "head.v"),
        (4, 6, 3, "block_02 to block_05, skip, tail"),
        (2, 101, 3, "block_02 to block_100"),
    ],
)
def test_what_starts_from_random_values_is_named(random_params, tmp_path, scale, blocks, head_kernel, expected):
    save(Model(network := A2F(scale=2, features=8, blocks=2), random_params(network)), tmp_path / "small.safetensors")
    params = random_params(A2F(scale=scale, features=8, blocks=blocks, head_kernel=head_kernel))
    lines = []
    initialize_from(
        str(tmp_path / "small.safetensors"), TrainState(jnp.int32(0), params, None, ()), scale, lines.append
    )
    assert lines == [f"Starting from {tmp_path / 'small.safetensors'}; randomly initialized: {expected}"]
