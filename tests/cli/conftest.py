"""Weights, an image, and a check of error messages."""

import numpy as np
import pytest

from a2f_jax import cli
from a2f_jax.images import write_rgb
from a2f_jax.model import Model, save
from a2f_jax.models.a2f import A2F


@pytest.fixture(scope="package")
def weights(tmp_path_factory, random_params):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save(Model.from_params(random_params(A2F(scale=2, features=8, blocks=1))), path)
    return str(path)


@pytest.fixture
def photo(tmp_path):
    rng = np.random.default_rng(0)
    write_rgb(tmp_path / "photo.png", rng.integers(0, 256, (40, 44, 3), dtype=np.uint8))
    return str(tmp_path / "photo.png")


@pytest.fixture
def fails(capsys):
    def run(*argv):
        """Runs a command that must fail with exit code 2, and returns its one-line error message."""
        assert cli.main(argv) == 2
        captured = capsys.readouterr()
        line = captured.err.splitlines()[-1]
        assert line.startswith("a2f: error: ")
        assert "Traceback" not in captured.err
        return line

    return run


@pytest.fixture(scope="package")
def several_scales(tmp_path_factory):
    """Returns a file with weights that serve several scales: random tensors named as in VDSR's published file."""
    path = tmp_path_factory.mktemp("published") / "vdsr.npz"
    rng = np.random.default_rng(0)
    tensors = {}
    for i, (features, outputs) in enumerate([(1, 64), *[(64, 64)] * 18, (64, 1)], 1):
        kernel = rng.normal(0, 0.01, (3, 3, features, outputs)).astype(np.float32)
        tensors[f"weight_{i}"] = kernel[..., 0] if outputs == 1 else kernel
        tensors[f"bias_{i}"] = np.zeros((outputs, 1), np.float32)
    np.savez(path, **tensors)
    return str(path)
