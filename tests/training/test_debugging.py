"""The origin of a NaN or an infinity."""

import jax
import jax.numpy as jnp
import pytest

from a2f_jax.models.a2f import A2F
from a2f_jax.training.debugging import find_nonfinite
from a2f_jax.training.optimizer import make_optimizer
from a2f_jax.training.state import TrainState
from a2f_jax.training.step import AXIS, make_train_step


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        (lambda x: jnp.sqrt(x - 3) * 2, "sqrt"),
        (lambda x: jnp.exp(100 * x) + 1, "exp"),
        (lambda x: jax.jit(jnp.log)(x - 2) + 1, "log"),
        (lambda x: jax.checkpoint(jnp.log)(x - 2) + 1, "log"),
        (lambda x: jax.lax.scan(lambda c, _: (c * 1e30, c), x, None, length=9)[0], "mul"),
        (lambda x: jax.lax.scan(lambda c, y: (c / y, None), x, jnp.arange(4.0), reverse=True)[0], "div"),
        (jax.grad(lambda y: jnp.sqrt(y - 2)), "div"),  # finite forward, infinite backward
    ],
)
def test_the_first_operation_that_is_not_finite_is_found(function, operation):
    assert find_nonfinite(function, jnp.float32(2)).split()[0] == operation


def test_a_function_with_finite_values_only_has_none():
    assert find_nonfinite(lambda x: jnp.log(x) + jax.lax.cond(x > 1, jnp.sin, jnp.cos, x), jnp.float32(2)) is None


@pytest.fixture
def origin(batches, random_params, config):
    """Returns `origin(change, remat=False)`: where a training step fails after `change` has modified its parameters."""

    network = A2F(scale=2, features=4, blocks=1)

    def find(change, remat=False):
        rule = make_optimizer(config)
        params = jax.tree.map(jnp.asarray, random_params(network))
        state = TrainState(jnp.int32(0), params, None, rule.init(params))
        change(params)
        step = make_train_step(network.clone(remat=remat), rule)
        update = jax.vmap(step, in_axes=(None, 0), out_axes=None, axis_name=AXIS)
        return find_nonfinite(update, state, jax.tree.map(jnp.asarray, {k: v[:1] for k, v in batches.items()}))

    return find


@pytest.mark.parametrize("options", [{}, {"remat": True}])
def test_the_block_and_the_forward_pass_are_named(origin, options):
    def overflow(params):
        params["block_00"]["reduce"]["g"] = jnp.full(4, 3e38)

    found = origin(overflow, **options)
    assert "in block_00/reduce, forward pass" in found


def test_the_block_and_the_backward_pass_are_named(origin):
    def overflow_backwards(params):  # activations of 1e-30, gradients of 1e50
        params["head"]["g"] = jnp.full(4, 1e-30)
        params["head"]["bias"] = jnp.zeros(4)
        params["block_00"]["expand"]["g"] = jnp.full(128, 1e25)
        params["block_00"]["expand"]["bias"] = jnp.zeros(128)
        params["block_00"]["reduce"]["g"] = jnp.full(4, 1e25)

    found = origin(overflow_backwards)
    assert "in block_00/expand, backward pass" in found


def test_keys_of_random_numbers_are_passed_over():
    def noisy(x, words):
        key = jax.random.wrap_key_data(words, impl="threefry2x32")
        return jnp.log(x * jax.random.uniform(key))

    words = jnp.zeros(2, jnp.uint32)
    assert find_nonfinite(noisy, jnp.float32(0), words) == "log in update"
    assert find_nonfinite(noisy, jnp.float32(1), words) is None
