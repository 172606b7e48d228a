"""`a2f models`: the weights that ship with the package, and the other networks."""

import json
import pathlib
import re

import pytest

from a2f_jax import cli
from a2f_jax.model import load
from a2f_jax.models.registry import PEERS
from a2f_jax.weights import read_metadata, shipped_weights

ROOT = pathlib.Path(__file__).parents[2]


def test_all_shipped_weights_are_listed_with_their_scores(capsys):
    assert cli.main(["models"]) == 0
    table = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in table[1:-1]] == list(shipped_weights())
    for line in table[1:-1]:
        assert line.count(" / 0.") >= 2  # sets


def test_all_other_networks_are_listed_with_their_scales_colors_and_weights(capsys):
    assert cli.main(["models"]) == 0
    table = capsys.readouterr().out.split("\n\n")[1].splitlines()[1:-1]
    assert [line.split()[0] for line in table] == list(PEERS)
    rows = {line.split()[0]: re.split(r" {2,}", line)[1:] for line in table}
    assert rows["lapsrn"][:2] == ["×2 ×4", "luma"]
    assert rows["rcan"] == ["×2 ×3 ×4", "RGB", "–"]
    assert rows["carn-m"][2] == "PyTorch file of github.com/nmhkahn/CARN-pytorch"
    assert [name for name, row in rows.items() if row[2] != "–"] == [n for n, peer in PEERS.items() if peer.published]


def test_weights_without_scores_are_listed_too(weights, monkeypatch, capsys):
    monkeypatch.setattr("a2f_jax.weights.shipped_weights", lambda: {"tiny-x2": pathlib.Path(weights)})
    assert cli.main(["models"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["tiny-x2", "0.1", "–", "–", "–"]


def test_names_tell_variant_scale_and_degradation():
    for name in shipped_weights():
        model = load(name)
        degradation = model.metadata.get("degradation")
        assert f"{model.variant}-x{model.scale}{f'-{degradation}' if degradation else ''}" == name
        assert {"data", "license", "commit", "scores"} <= set(model.metadata)
        assert ("step" in model.metadata) != ("average_of" in model.metadata)


@pytest.mark.parametrize("page", ["README.md", "docs/weights.md"])
def test_the_documentation_gives_the_scores_in_the_metadata(page):
    lines = (ROOT / page).read_text().split("weights -->")[1].splitlines()
    # The table on LR images that were not degraded leaves out the weights for others.
    for name, file in ((n, f) for n, f in shipped_weights().items() if "degradation" not in read_metadata(f)):
        (line,) = [line for line in lines if line.startswith(f"| `{name}` |")]
        for score in json.loads(read_metadata(file)["scores"]).values():
            assert f"{score['psnr']:.2f} / {score['ssim']:.4f}" in line


def test_info_shows_scores_and_training_data(capsys):
    assert cli.main(["info", "a2f-sd-x4"]) == 0
    text = capsys.readouterr().out
    assert "CID22" in text
    assert " dB / 0." in text
