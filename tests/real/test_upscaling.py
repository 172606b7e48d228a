"""Tiled upscaling with the authors' weights, compared with the authors' own outputs."""

import jax
import numpy as np
import pytest

import a2f_jax
from a2f_jax.upscaling.plan import Plan
from a2f_jax.upscaling.programs import programs_of
from a2f_jax.upscaling.tiles import strips


def _programs(model):
    return programs_of(model.inference_network, model.folded, jax.devices()[0])


@pytest.mark.parametrize("name", ["sd_x4", "m_x4", "sd_x2"])
def test_tiles_give_the_golden_output(shared, name):
    model = a2f_jax.load(shared / f"checkpoints/official/AAF_{name.upper()[:-2]}{name[-2:]}/model_best.pt")
    golden = np.load(shared / f"golden/a2f_{name}.npz")
    sr = np.concatenate(list(strips(_programs(model), golden["lr"], Plan(16, "disk"))))
    np.testing.assert_allclose(sr, golden["sr"], rtol=0, atol=1e-3)
