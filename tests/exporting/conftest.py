"""Exports a model, and runs the file in ONNX Runtime."""

import numpy as np
import onnxruntime
import pytest

from a2f_jax.exporting.formats import export


@pytest.fixture
def exported(tmp_path):
    """Returns `exported(model, **options)`, which exports a model to ONNX and returns a function of LR images."""

    def run(model, **options):
        export(model, tmp_path / "model.onnx", **options)
        session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
        return lambda lr: session.run(["sr"], {"lr": lr})[0]

    return run


@pytest.fixture
def images():
    """Returns `images(*shape)`, float32 noise in 0..255."""
    rng = np.random.default_rng(0)
    return lambda *shape: rng.uniform(0, 255, shape).astype(np.float32)
