"""Starting a run from existing weights."""

import jax
import jax.numpy as jnp
import numpy as np

from a2f_jax.model import Model, save
from a2f_jax.models.a2f import build
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


def test_a_run_starts_from_weights_in_a_bucket(bucket, random_params):
    network = build("a2f-s", 2)
    params = random_params(network)
    save(Model(network, params), f"{bucket}/weights/s.safetensors")
    start = TrainState(jnp.int32(0), jax.tree.map(jnp.zeros_like, params), None, ())
    lines = []
    found = initialize_from(f"{bucket}/weights/s.safetensors", start, 2, lines.append).params
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert lines == [f"Starting from {bucket}/weights/s.safetensors"]
