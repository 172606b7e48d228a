"""The table of scores on the photographs that weights were trained on, and on others."""

import importlib
import pathlib

import numpy as np
import pytest

from a2f_jax.data import open_pairs, prepare
from a2f_jax.evaluation.metrics import psnr_y
from a2f_jax.images import write_rgb
from a2f_jax.model import Model, save
from a2f_jax.models.a2f import A2F


def test_training_and_held_out_photographs_are_measured_apart(tmp_path, random_params, monkeypatch):
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[2] / "benchmarks")
    benchmark = importlib.import_module("generalization")
    walls = np.random.default_rng(12).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    write_rgb(tmp_path / "held-out/wall.png", walls)
    for i in range(12):
        image = np.random.default_rng(i).integers(0, 256, (32, 36, 3), dtype=np.uint8)
        for folder in ("photographs", "benchmark/Set5/HR", "benchmark/Set14/HR"):
            write_rgb(tmp_path / folder / f"{i}.png", image)
    data = {"data_dir": tmp_path / "data", "scale": 2}
    prepare("mine", **data, source=tmp_path / "photographs", validation=2, min_size=1)
    model = Model.from_params(random_params(A2F(scale=2, features=8, blocks=1)))
    save(model, tmp_path / "tiny.safetensors")
    (tmp_path / "page.md").write_text("<!-- generalization -->\n<!-- /generalization -->\n")
    options = {"data": "benchmark", "data-dir": "data", "weights": "tiny.safetensors", "table": "page.md"}
    options["wallpapers"] = "held-out"
    paths = [x for name, value in options.items() for x in (f"--{name}", str(tmp_path / value))]
    benchmark.main([*paths, "--photographs", "mine"])
    row = (tmp_path / "page.md").read_text().splitlines()[3].split("|")[2:-1]
    trained, held_out = (open_pairs("mine", **data, split=split) for split in ("train", "validation"))
    other = [*open_pairs("sample", **data, split="train"), *open_pairs("sample", **data, split="validation")]
    wall = open_pairs(tmp_path / "held-out", scale=2)
    set5 = open_pairs("set5", scale=2, data_dir=tmp_path / "benchmark")
    chosen = [trained[0], trained[8]], held_out, other, wall, set5
    expected = [np.mean([psnr_y(model.upscale(pair.lr), pair.hr, 2) for pair in pairs]) for pairs in chosen]
    assert [float(cell) for cell in row] == pytest.approx(
        [*expected[:4], np.mean(expected[1:4]), expected[4], expected[4]], abs=1e-3
    )
