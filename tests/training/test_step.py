"""The training step compared with its definition."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from a2f_jax.models.color import LumaNetwork, bicubic
from a2f_jax.training.state import TrainState
from a2f_jax.training.step import AXIS, make_train_step

RATE = 0.5


@pytest.fixture(scope="module")
def params(network, random_params):
    return random_params(network)


@pytest.fixture(scope="module")
def batch(batches):
    return {key: value[0] for key, value in batches.items()}


def run(network, params, batch, optimizer=None, ema=None, **options):
    """Runs one step on one device, which is an axis of length 1."""
    optimizer = optimizer or optax.sgd(RATE)
    state = TrainState(jnp.zeros((), jnp.int32), params, ema, optimizer.init(params))
    step = make_train_step(network, optimizer, **options)
    one = jax.tree.map(lambda x: jnp.asarray(x)[None], (state, batch))
    return jax.tree.map(lambda x: x[0], jax.jit(jax.vmap(step, axis_name=AXIS))(*one))


@pytest.fixture(scope="module")
def plain(network, params, batch):
    return run(network, params, batch)


def test_loss_is_the_mean_absolute_error_and_the_step_follows_its_gradient(network, params, batch, plain):
    def loss(p):
        return jnp.abs(network.apply({"params": p}, batch["lr"]) - batch["hr"]).mean()

    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    state, metrics = plain
    assert metrics["loss"] == pytest.approx(float(value), rel=1e-5)
    squares = sum(float(np.sum(np.square(g, dtype=np.float64))) for g in jax.tree.leaves(grads))
    assert metrics["grad_norm"] == pytest.approx(squares**0.5, rel=1e-5)
    jax.tree.map(
        lambda new, old, g: np.testing.assert_allclose(new, old - RATE * g, atol=1e-4), state.params, params, grads
    )
    assert state.step == 1


class Brightness(LumaNetwork):
    """Multiplies the enlarged Y."""

    enlarged = True

    def luma(self, y):
        """Has a single parameter."""
        return y * self.param("factor", nn.initializers.ones, ())


def test_luma_networks_are_trained_on_y(batch):
    network, params = Brightness(2), {"factor": jnp.float32(0.9)}
    enlarged = np.asarray(bicubic(batch["lr"].astype(np.float32), 2))
    y, truth = (16 + image @ (np.array([65.481, 128.553, 24.966]) / 255) for image in (enlarged, batch["hr"]))
    state, metrics = run(network, params, batch)
    assert metrics["loss"] == pytest.approx(np.abs(0.9 * y - truth).mean(), rel=1e-4)
    slope = (np.sign(0.9 * y - truth) * y).mean()
    assert state.params["factor"] == pytest.approx(0.9 - RATE * slope, rel=1e-4)


def assert_same_step(state, plain):
    # The order of sums in the gradients differs.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), state.params, plain[0].params)


def test_accumulation_gives_the_gradient_of_the_whole_batch(network, params, batch, plain):
    state, metrics = run(network, params, batch, accumulate=4)
    assert_same_step(state, plain)
    assert metrics["loss"] == pytest.approx(float(plain[1]["loss"]), rel=1e-5)


def test_a_batch_is_degraded_as_a_whole_before_it_is_split(network, params, batch):
    # Noise that depends on the whole share, so that it differs if a part of it is degraded alone.
    def degrade(given):
        offset = given["hr"].astype(jnp.int32).sum() % 50
        return {"lr": given["hr"][:, ::2, ::2] // 2 + offset.astype(jnp.uint8), "hr": given["hr"]}

    whole = {"hr": batch["hr"]}
    want = run(network, params, degrade({"hr": jnp.asarray(batch["hr"])}))
    for accumulate in (1, 2):
        state, metrics = run(network, params, whole, degrade=degrade, accumulate=accumulate)
        assert_same_step(state, want)
        assert metrics["loss"] == pytest.approx(float(want[1]["loss"]), rel=1e-5)


def test_rematerialization_gives_the_same_gradient(network, params, batch, plain):
    assert_same_step(run(dataclasses.replace(network, remat=True), params, batch)[0], plain)


def test_bfloat16_approximates_the_gradient_with_float32_parameters(network, params, batch, plain):
    state, metrics = run(dataclasses.replace(network, dtype=jnp.bfloat16), params, batch)
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    assert metrics["loss"] == pytest.approx(float(plain[1]["loss"]), rel=0.01)  # 8 bits of precision
    assert metrics["loss"] != plain[1]["loss"]


def test_the_average_of_the_weights_follows_its_decay(network, params, batch, plain):
    ema = jax.tree.map(lambda x: x + 1, params)
    state, _ = run(network, params, batch, ema=ema, ema_decay=0.999)
    # At step 0 the decay is still warming up: (1 + 0) / (10 + 0).
    jax.tree.map(
        lambda new, old, p: np.testing.assert_allclose(new, 0.1 * old + 0.9 * p, atol=1e-5),
        state.ema,
        ema,
        plain[0].params,
    )


def test_clipping_bounds_the_norm_of_the_step(network, params, batch):
    optimizer = optax.chain(optax.clip_by_global_norm(0.25), optax.sgd(1.0))
    state, metrics = run(network, params, batch, optimizer)
    moved = jax.tree.map(lambda x, y: np.asarray(x, np.float64) - y, state.params, params)
    norm = sum(np.square(x).sum() for x in jax.tree.leaves(moved)) ** 0.5
    assert metrics["grad_norm"] > 1  # measured before clipping
    assert norm == pytest.approx(0.25, rel=1e-3)
