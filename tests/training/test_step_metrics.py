import math

import jax.numpy as jnp
import numpy as np

from a2f_jax.training import step_metrics
from a2f_jax.training.step_metrics import StepMetrics


def test_means_are_those_of_all_steps_since_they_were_cleared(monkeypatch):
    monkeypatch.setattr(step_metrics, "_MOST_PENDING", 10)
    losses = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    measured = StepMetrics()
    for i, loss in enumerate(losses):
        measured.add(2 * i, {"loss": jnp.asarray(loss), "grad_norm": jnp.asarray(loss + 1)})
        if i % 20 == 7:  # as when a checkpoint is saved
            measured.take()
    means, bad = measured.take()
    assert means["loss"] == math.fsum(map(float, losses.flat)) / losses.size
    assert means["grad_norm"] == math.fsum(map(float, (losses + 1).flat)) / losses.size
    assert bad is None
    measured.clear()
    measured.add(100, {"loss": jnp.ones(2)})
    assert measured.take() == ({"loss": 1.0}, None)


def test_the_first_step_that_is_not_finite_is_found_however_late(monkeypatch):
    monkeypatch.setattr(step_metrics, "_MOST_PENDING", 10)
    measured = StepMetrics()
    for step in range(0, 80, 2):
        broken = math.nan if step in (6, 40) else 1.0
        measured.add(step, {"loss": jnp.array([1.0, broken]), "grad_norm": jnp.ones(2)})
    assert measured.take()[1] == 7
    measured.clear()
    assert measured.take() == ({}, None)


def test_metrics_that_nobody_asks_for_do_not_stay_on_the_devices():
    measured, loss = StepMetrics(), jnp.ones(1)
    for step in range(5000):
        measured.add(step, {"loss": loss})
    assert len(measured._pending) <= 1000
    assert measured.take()[0] == {"loss": 1.0}
