"""Outputs with the published weights match those of the authors' PyTorch model."""

import numpy as np
import pytest

import a2f_jax

WEIGHTS = {"a2f-sd": (2, 3, 4), "a2f-s": (4,), "a2f-m": (4,)}


@pytest.mark.parametrize(("variant", "scale"), [(v, s) for v, scales in WEIGHTS.items() for s in scales])
def test_published_weights_yield_the_golden_output(shared, variant, scale):
    name = variant.removeprefix("a2f-")
    model = a2f_jax.load(shared / f"checkpoints/official/AAF_{name.upper()}_x{scale}/model_best.pt")
    assert (model.variant, model.scale) == (variant, scale)
    golden = np.load(shared / f"golden/a2f_{name}_x{scale}.npz")
    sr = model(golden["lr"][None].astype(np.float32))[0]
    np.testing.assert_allclose(sr, golden["sr"], rtol=0, atol=1e-3)
