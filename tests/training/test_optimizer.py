"""Learning rates against the formulas they are named after."""

import math

import pytest

from a2f_jax.configs import a2f
from a2f_jax.errors import UserError
from a2f_jax.training.optimizer import learning_rate


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


def test_an_unknown_schedule_is_refused_by_name():
    config = a2f.get_config("sd_x4")
    config.optimizer.schedule = "linear"
    with pytest.raises(UserError, match="'linear' is unknown"):
        learning_rate(config)
