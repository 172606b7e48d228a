"""Exported models with published weights in ONNX Runtime, against what the original code gives."""

import numpy as np
import onnxruntime
import pytest

import a2f_jax

CASES = [
    *(
        "srcnn_x4",
        "fsrcnn_x4",
        "vdsr_x4",
        "drrn_x2",
        "lapsrn_x4",
        "idn_x4",
        "carn_x2",
        "carn-m_x4",
        "imdn_x4",
        "pan_x2",
    ),
    "pan_x4",
]


def check(weights, scale, golden, tmp_path, tolerance):
    a2f_jax.export(a2f_jax.load(weights, scale), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (sr,) = session.run(None, {"lr": golden["lr"][None].astype(np.float32)})
    np.testing.assert_allclose(sr[0], golden["sr"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", CASES)
def test_exported_networks_give_the_originals_output(shared, case, tmp_path):
    name, _, scale = case.rpartition("_x")
    names = [f"{stem}{suffix}" for stem in (case, name) for suffix in (".npz", ".pth")]
    file = next(path for name in names if (path := shared / "checkpoints/peers" / name).exists())
    golden = np.load(shared / f"golden/peers/{case}.npz")
    # In float64, VDSR ×4 is 1.2e-3 from the golden output itself, and here another 1.6e-3 from `model(lr)`.
    check(file, int(scale), golden, tmp_path, 3e-3 if name == "vdsr" else 1e-3)


@pytest.mark.parametrize("case", ["sd_x2", "sd_x3", "sd_x4", "s_x4", "m_x4"])
def test_exported_a2f_gives_the_originals_output(shared, case, tmp_path):
    variant, scale = case.split("_x")
    file = shared / f"checkpoints/official/AAF_{variant.upper()}_x{scale}/model_best.pt"
    check(file, int(scale), np.load(shared / f"golden/a2f_{case}.npz"), tmp_path, 1e-3)
