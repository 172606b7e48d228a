"""The table of weights in README.md and docs/weights.md."""

import importlib
import pathlib

import pytest

from a2f_jax.errors import UserError
from a2f_jax.evaluation.benchmark import Bicubic
from a2f_jax.model import load
from a2f_jax.weights import shipped_weights


@pytest.fixture
def weights(monkeypatch):
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("weights")


def test_scores_are_rounded_only_once(weights, monkeypatch):
    def evaluate(upscaler, datasets, data_dir):
        if datasets != ["set5"]:
            raise UserError("missing")
        return [{"dataset": "set5", "images": 5, "psnr": 30.40468, "ssim": 0.868949}]

    monkeypatch.setattr(weights, "evaluate", evaluate)
    scores = weights.scores(Bicubic(3), "data")
    assert weights.row("bicubic ×3", scores, "*{}*") == "| *bicubic ×3* | *30.40 / 0.8689* |  |  |"


def test_bicubic_x3_on_set5_has_its_true_second_decimal(weights, shared, monkeypatch):
    monkeypatch.setattr(weights, "SETS", {"set5": "Set5"})
    scores = weights.scores(Bicubic(3), str(shared / "data/SelfExSR"))
    assert weights.row("bicubic", scores) == "| bicubic | 30.40 / 0.8689 |"


def test_no_weights_name_folders_of_the_machine_that_trained_them():
    for file in shipped_weights().values():
        assert not any("/" in load(file).metadata.get(key, "") for key in ("init", "average_of"))


def test_the_model_card_lists_the_checksums_of_the_files_as_they_are(weights):
    assert weights.checksums() in (pathlib.Path(__file__).parents[2] / "docs/weights.md").read_text()
