"""The Beam pipeline: results, manifest, dead letters, and resuming."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from a2f_jax.model import save

SCRIPT = pathlib.Path(__file__).parents[2] / "launch/beam_upscale.py"


@pytest.fixture(scope="module")
def beam_upscale():
    pytest.importorskip("apache_beam", reason="needs the extra [beam]")
    spec = importlib.util.spec_from_file_location("beam_upscale", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _entries(folder, name):
    return sorted((json.loads(x) for f in folder.glob(f"{name}*") for x in f.open()), key=lambda e: e["image"])


def test_results_manifest_and_dead_letters(beam_upscale, model, tmp_path):
    save(model, tmp_path / "weights.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 14, 3), np.uint8)
    (tmp_path / "in/deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.png"):
        Image.fromarray(pixels).save(tmp_path / "in" / name)
    (tmp_path / "in/bad.png").write_bytes(b"?")
    out = tmp_path / "out"
    argv = ["--images", f"{tmp_path}/in/**.png", "--output", str(out), "--weights", f"{tmp_path}/weights.safetensors"]
    for status in ("done", "skipped"):
        beam_upscale.main(argv)
        assert [entry["status"] for entry in _entries(out, "manifest")] == [status, status]
        (failed,) = _entries(out, "dead_letter")
        assert failed["image"] == f"{tmp_path}/in/bad.png"
        assert "bad.png is not an image or is damaged" in failed["error"]
    for name in ("a.png", "deep/b.png"):
        np.testing.assert_array_equal(np.asarray(Image.open(out / name)), model.upscale(pixels))
