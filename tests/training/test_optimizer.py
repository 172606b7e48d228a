"""Learning rates and optimizers compared with their published formulas."""

import math

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2f_jax.configs import a2f
from a2f_jax.errors import UserError
from a2f_jax.training.optimizer import frozen_parameters, learning_rate, make_optimizer


def test_the_papers_learning_rate_is_halved_every_200000_steps():
    rate = learning_rate(a2f.get_config("sd_x4"))
    for step, value in [(0, 1e-3), (199_999, 1e-3), (200_000, 5e-4), (999_999, 6.25e-5)]:
        assert float(rate(step)) == pytest.approx(value)


def test_the_halving_can_be_put_off_forever():
    config = a2f.get_config("sd_x4")
    config.optimizer.halve_every = 10**12
    assert float(learning_rate(config)(jnp.int32(999_999))) == pytest.approx(1e-3)


def test_cosine_warms_up_and_ends_at_zero():
    config = a2f.get_config("sd_x4,recipe=long")
    config.steps, config.optimizer.warmup, config.optimizer.learning_rate = 1000, 100, 2e-3
    rate = learning_rate(config)
    assert float(rate(0)) == 0
    assert float(rate(50)) == pytest.approx(1e-3)
    assert float(rate(100)) == pytest.approx(2e-3)
    assert float(rate(400)) == pytest.approx(1e-3 * (1 + math.cos(math.pi / 3)))
    assert float(rate(1000)) == pytest.approx(0, abs=1e-9)


@pytest.fixture
def params():
    return {
        "head": {"v": jnp.ones((3, 3, 3, 4)), "bias": jnp.ones(4)},
        "block_00": {"attention": {"kernel": jnp.ones((4, 4))}, "lambda_x": jnp.ones(())},
    }


@pytest.mark.parametrize(
    ("pattern", "frozen"),
    [
        ("", []),
        ("^head/", ["head/v", "head/bias"]),
        ("attention|bias$", ["head/bias", "block_00/attention/kernel"]),
        (r"block_\d+/lambda_", ["block_00/lambda_x"]),
    ],
)
def test_parameters_are_frozen_where_the_expression_has_a_match_in_their_names(params, pattern, frozen):
    found = flax.traverse_util.flatten_dict(frozen_parameters(params, pattern), sep="/")
    assert sorted(name for name, fixed in found.items() if fixed) == sorted(frozen)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "body",
            "freeze=body matches no parameter: it is searched in names such as head/v, head/bias, block_00/attent",
        ),
        ("a", "freeze=a matches every parameter, so that nothing would be trained: it is searched in names such as"),
    ],
)
def test_an_expression_that_matches_nothing_or_everything_is_refused(params, pattern, message):
    config = a2f.get_config("sd_x4")
    config.optimizer.freeze = pattern
    with pytest.raises(UserError, match=message):
        make_optimizer(config).init(params)


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_frozen_parameters_have_no_state_and_do_not_count_in_the_norm(params, name):
    config = a2f.get_config("sd_x4")
    config.optimizer.name, config.optimizer.clip_norm = name, 1.0
    grads = jax.tree.map(lambda x: 10 * x, params)
    rest = {"block_00": params["block_00"]}
    alone = make_optimizer(config)
    want, _ = alone.update({"block_00": grads["block_00"]}, alone.init(rest), rest)
    config.optimizer.freeze = "^head/"
    optimizer = make_optimizer(config)
    state = optimizer.init(params)
    updates, _ = optimizer.update(grads, state, params)
    jax.tree.map(np.testing.assert_array_equal, updates["block_00"], want["block_00"])
    assert not any(x.any() for x in jax.tree.leaves(updates["head"]))
    assert sum(x.size for x in jax.tree.leaves(state)) == sum(x.size for x in jax.tree.leaves(alone.init(rest)))


def _muon(adam_factor=1.0):
    config = a2f.get_config("sd_x4")
    config.optimizer.name, config.optimizer.learning_rate = "muon", 2e-2
    config.optimizer.adam_factor = adam_factor
    return make_optimizer(config)


def test_muon_orthogonalizes_kernels_as_matrices_of_inputs_by_outputs():
    """Five Newton–Schulz steps bring all singular values near 1 (Jordan, 2024)."""
    params = {"kernel": jnp.zeros((3, 3, 4, 16))}
    grads = {"kernel": jax.random.normal(jax.random.key(0), (3, 3, 4, 16)) * np.logspace(-1, 1, 16)[None, None, None]}
    optimizer = _muon()
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    values = np.linalg.svd(np.asarray(updates["kernel"]).reshape(36, 16), compute_uv=False) / 2e-2
    assert values.min() > 0.6 and values.max() < 1.3


@pytest.mark.parametrize("factor", [1.0, 0.1, None])
def test_muon_leaves_gains_and_scalars_to_adam(factor):
    params = {"g": jnp.ones(16), "lambda_x": jnp.ones(())}
    optimizer = _muon(factor)
    updates, _ = optimizer.update(jax.tree.map(lambda x: -3.0 * x, params), optimizer.init(params), params)
    # The first step of Adam with Nesterov momentum (Dozat, 2016), whatever the gradient's size: the gradient's sign
    # times 1 + b1 · (1 − b1) / (1 − b1²).
    first = (factor or 1.0) * 2e-2 * (1 + 0.9 * 0.1 / (1 - 0.9**2))
    np.testing.assert_allclose(updates["g"], first, rtol=1e-5)
    np.testing.assert_allclose(updates["lambda_x"], first, rtol=1e-5)
