"""Learning rates and optimizers compared with their published formulas."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2f_jax.configs import a2f
from a2f_jax.training.optimizer import learning_rate, make_optimizer


def test_the_papers_learning_rate_is_halved_every_200000_steps():
    rate = learning_rate(a2f.get_config("sd_x4"))
    for step, value in [(0, 1e-3), (199_999, 1e-3), (200_000, 5e-4), (999_999, 6.25e-5)]:
        assert float(rate(step)) == pytest.approx(value)


def test_cosine_warms_up_and_ends_at_zero():
    config = a2f.get_config("sd_x4,recipe=long")
    config.steps, config.optimizer.warmup, config.optimizer.learning_rate = 1000, 100, 2e-3
    rate = learning_rate(config)
    assert float(rate(0)) == 0
    assert float(rate(50)) == pytest.approx(1e-3)
    assert float(rate(100)) == pytest.approx(2e-3)
    assert float(rate(400)) == pytest.approx(1e-3 * (1 + math.cos(math.pi / 3)))
    assert float(rate(1000)) == pytest.approx(0, abs=1e-9)


def _muon():
    config = a2f.get_config("sd_x4")
    config.optimizer.name, config.optimizer.learning_rate = "muon", 2e-2
    return make_optimizer(config)


def test_muon_orthogonalizes_kernels_as_matrices_of_inputs_by_outputs():
    """Five Newton–Schulz steps bring all singular values near 1 (Jordan, 2024)."""
    params = {"kernel": jnp.zeros((3, 3, 4, 16))}
    grads = {"kernel": jax.random.normal(jax.random.key(0), (3, 3, 4, 16)) * jnp.logspace(-1, 1, 16)}
    optimizer = _muon()
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    values = np.linalg.svd(np.asarray(updates["kernel"]).reshape(36, 16), compute_uv=False) / 2e-2
    assert values.min() > 0.6 and values.max() < 1.3


def test_muon_leaves_gains_and_scalars_to_adam():
    params = {"g": jnp.ones(16), "lambda_x": jnp.ones(())}
    optimizer = _muon()
    updates, _ = optimizer.update(jax.tree.map(lambda x: -3.0 * x, params), optimizer.init(params), params)
    # The first step of Adam with Nesterov momentum (Dozat, 2016), whatever the gradient's size: the gradient's sign
    # times 1 + b1 · (1 − b1) / (1 − b1²).
    first = 2e-2 * (1 + 0.9 * 0.1 / (1 - 0.9**2))
    np.testing.assert_allclose(updates["g"], first, rtol=1e-5)
    np.testing.assert_allclose(updates["lambda_x"], first, rtol=1e-5)
