"""Tiled upscaling with the authors' weights, compared with the authors' own outputs."""

import jax
import numpy as np
import pytest

import a2f_jax
from a2f_jax.images import read_rgb
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


@pytest.mark.parametrize(("kind", "most"), [("photograph", 5e-4), ("noise", 1e-3)])
@pytest.mark.parametrize("name", ["SD_x4", "S_x4"])
def test_the_difference_from_the_whole_image_is_as_documented(shared, name, kind, most):
    model = a2f_jax.load(shared / f"checkpoints/official/AAF_{name}/model_best.pt")
    if kind == "noise":
        image = np.random.default_rng(0).integers(0, 256, (120, 120, 3), np.uint8)
    else:
        image = read_rgb(shared / "data/SelfExSR/Set14/image_SRF_4/img_002_SRF_4_LR.png")[:120, :120]
    whole = np.asarray(jax.jit(model)(image[None].astype(np.float32))[0])
    np.testing.assert_allclose(model.upscale(image.astype(np.float32)), whole, rtol=0, atol=most)
