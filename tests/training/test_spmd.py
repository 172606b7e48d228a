"""The same training on one device and on eight, through shard_map and pmap."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from a2f_jax.models.a2f import A2F
from a2f_jax.training.optimizer import make_optimizer
from a2f_jax.training.spmd import parallelize
from a2f_jax.training.state import TrainState
from a2f_jax.training.step import AXIS, make_train_step

STEPS = 20


@pytest.fixture(scope="module")
def optimizer():
    return optax.adam(1e-3)


@pytest.fixture(scope="module")
def step(network, optimizer):
    return make_train_step(network, optimizer, ema_decay=0.9)


@pytest.fixture
def state(network, optimizer, random_params):
    params = jax.tree.map(jnp.asarray, random_params(network))
    ema = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), params, ema, optimizer.init(params))


@pytest.fixture(scope="module")
def stream():
    """Batches of eight patches for all steps."""
    rng = np.random.default_rng(0)
    return {
        "lr": rng.integers(0, 256, (STEPS, 8, 6, 6, 3), dtype=np.uint8),
        "hr": rng.integers(0, 256, (STEPS, 8, 12, 12, 3), dtype=np.uint8),
    }


def on_many(step, mode, state, stream, per_dispatch):
    spmd = parallelize(step, mode)
    running, losses = spmd.put_state(state), []
    for first in range(0, STEPS, per_dispatch):
        part = {key: value[first : first + per_dispatch] for key, value in stream.items()}
        running, metrics = spmd.step(running, spmd.put_inputs(part))
        losses.extend(np.asarray(metrics["loss"]))
    return spmd.get_state(running), losses


@pytest.fixture(scope="module")
def on_one(step, stream):
    """Trains on one device, which is an axis of length 1."""

    def run(state):
        one = jax.tree.map(lambda x: x[None], state)
        advance = jax.jit(jax.vmap(step, axis_name=AXIS))
        losses = []
        for i in range(STEPS):
            one, metrics = advance(one, {key: value[i][None] for key, value in stream.items()})
            losses.append(float(metrics["loss"][0]))
        return jax.tree.map(lambda x: x[0], one), losses

    return run


@pytest.mark.parametrize(("mode", "per_dispatch"), [("shard_map", 1), ("pmap", 1), ("shard_map", 5), ("pmap", 5)])
def test_eight_devices_train_as_one(step, mode, per_dispatch, state, stream, on_one):
    assert jax.device_count() == 8
    want, want_losses = on_one(state)
    have, losses = on_many(step, mode, state, stream, per_dispatch)
    np.testing.assert_allclose(losses, want_losses, rtol=1e-4)
    assert int(have.step) == STEPS
    # The order of sums differs, and Adam's first steps follow the sign of the gradient, which rounding can flip where
    # the gradient is nearly zero. 20 steps of 1e-3 could move a weight by 0.02; 1e-4 is 0.5 % of that.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), have.params, want.params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), have.ema, want.ema)


def test_both_modes_train_with_muon_alike(random_params, stream, config):
    config.optimizer.name = "muon"
    network, muon = A2F(scale=2, features=4, blocks=1), make_optimizer(config)
    params = jax.tree.map(jnp.asarray, random_params(network))
    step, state = make_train_step(network, muon), TrainState(jnp.int32(0), params, None, muon.init(params))
    (a, losses), (b, other_losses) = (on_many(step, mode, state, stream, STEPS) for mode in ("shard_map", "pmap"))
    np.testing.assert_allclose(losses, other_losses, rtol=1e-5)
    # The programs may round differently; 20 steps of 1e-3 could move a weight by 0.02.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), a.params, b.params)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("mode", ["shard_map", "pmap"])
def test_a_fetched_state_is_not_changed_by_further_training(step, mode, state, stream):
    spmd = parallelize(step, mode)
    part = spmd.put_inputs({key: value[:1] for key, value in stream.items()})
    running, _ = spmd.step(spmd.put_state(state), part)
    fetched = spmd.get_state(running)
    before = jax.device_get(fetched.params)
    spmd.step(running, part)  # donates the buffers of `running`
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(fetched.params), before)
    again = spmd.get_state(spmd.put_state(fetched))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(again), jax.device_get(fetched))
