"""The table of scores on compressed LR images."""

import importlib
import json
import pathlib

import numpy as np
import pytest

from a2f_jax.data import matlab_bicubic, prepare
from a2f_jax.evaluation.benchmark import jpeg_compressed
from a2f_jax.evaluation.metrics import psnr_y
from a2f_jax.images import write_rgb
from a2f_jax.model import Model, save
from a2f_jax.models.a2f import A2F


@pytest.fixture
def photo(monkeypatch):
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("photo")


@pytest.fixture
def picture():
    return lambda seed: np.random.default_rng(seed).integers(0, 256, (32, 36, 3), dtype=np.uint8)


@pytest.fixture
def options(tmp_path, picture, random_params):
    """Options for the benchmark, with a Set14 of one image, three photographs and two tiny networks ×2."""
    write_rgb(tmp_path / "benchmark/Set14/HR/0.png", picture(0))
    for i in range(3):
        write_rgb(tmp_path / f"photographs/{i}.png", picture(i))
    prepare("mine", scale=2, data_dir=tmp_path / "data", source=tmp_path / "photographs", validation=2, min_size=1)
    weights = [str(tmp_path / f"{name}.safetensors") for name in ("tiny", "other")]
    for seed, path in enumerate(weights):
        save(Model.from_params(random_params(A2F(scale=2, features=8, blocks=1), seed)), path)
    options = {
        "data": "benchmark",
        "photographs": "mine",
        "data-dir": "data",
        "output": "photo.json",
    }
    for name in ("data", "data-dir", "output"):
        options[name] = str(tmp_path / options[name])
    return ["--weights", *weights, *(word for name, value in options.items() for word in (f"--{name}", value))]


def test_every_set_is_measured_at_every_quality_with_all_weights_and_bicubic(photo, options, tmp_path, picture):
    page = tmp_path / "page.md"
    marks = ("photo", "photo-gains")
    page.write_text("before\n" + "".join(f"<!-- {mark} -->\n<!-- /{mark} -->\n" for mark in marks) + "after\n")
    photo.main([*options, "--table", str(page)])
    results = json.loads((tmp_path / "photo.json").read_text())
    assert [(r["set"], r["jpeg"], r["n"]) for r in results if r["weights"].startswith("bicubic")] == [
        (name, quality, n) for name, n in (("Set14", 1), ("photographs", 2)) for quality in photo.QUALITIES
    ]
    hr = picture(0)
    for result, quality in zip(results, photo.QUALITIES, strict=False):
        sr = matlab_bicubic(jpeg_compressed(matlab_bicubic(hr, 1 / 2), quality), 2)
        assert result["psnr"] == psnr_y(sr, hr, 2)
    first, second = page.read_text().split("<!-- /photo -->\n")
    lines = first.splitlines()
    assert lines[2] == "| set | weights | clean | JPEG 95 | JPEG 90 | JPEG 80 | JPEG 60 | JPEG 40 |"
    assert lines[4].startswith(f"| Set14 | bicubic ×2 | {results[0]['psnr']:.2f} / {results[0]['ssim']:.4f} | ")
    assert len(lines[4:]) == 6
    lines = second.splitlines()
    assert lines[1] == "| set | weights | JPEG 95 | JPEG 92 | JPEG 90 | JPEG 88 | JPEG 86 | JPEG 84 | JPEG 80 |"
    tiny, other = (
        next(r for r in results if r["weights"] == f"{name}.safetensors" and r["jpeg"] == 95)
        for name in ("tiny", "other")
    )
    gain = f"{other['psnr'] - tiny['psnr']:+.2f} / {other['ssim'] - tiny['ssim']:+.4f}"
    assert lines[3].startswith(f"| Set14 | other.safetensors | {gain} | ")
    assert len(lines[3:-2]) == 2
    assert lines[-1] == "after"
