"""`a2f info`."""

import re

import pytest

from a2f_jax import cli
from a2f_jax.model import Model, save
from a2f_jax.models.a2f import A2F, build


def test_info_shows_counts_and_metadata(random_params, tmp_path, capsys):
    save(Model.from_params(random_params(build("a2f-sd", 4))), tmp_path / "w.safetensors", {"step": "77"})
    assert cli.main(["info", str(tmp_path / "w.safetensors")]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["parameters"] == "319,672"
    assert lines["scale"] == "×4"
    assert lines["step"] == "77"


def test_info_describes_published_weights_of_another_network(several_scales, capsys, fails):
    assert cli.main(["info", several_scales, "--scale", "4"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (lines["variant"], lines["scale"], lines["source"]) == ("vdsr", "×4", "NumPy archive")
    assert lines["multi-adds"].startswith("612.6 G")  # as the slides print it
    assert "pass their PATH" in fails("info", "--scale", "4")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["srmdnf", "--scale", "2"],
            {
                "network": "SRMDNF",
                "scale": "×2, of ×2, ×3, ×4",
                "colors": "RGB",
                "parameters": "1,513,115",
                "multi-adds": "347.7 G for an output of 1280×720 pixels",
                "receptive field": "25×25 LR pixels",
                "weights": "none known",
                "training": "a2f train --config configs/peers.py:srmdnf_x2",
            },
        ),
        (
            ["a2f-l"],
            {
                "network": "A2F-L",
                "receptive field": "the whole image",
                "training": "a2f train --config configs/a2f.py:l_x4",
            },
        ),
    ],
)
def test_info_describes_a_network_without_weights(words, expected, capsys):
    assert cli.main(["info", *words]) == 0
    lines = dict(re.split(r" {2,}", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert {key: lines[key] for key in expected} == expected


def test_names_that_do_not_exist_get_suggestions(fails, photo):
    assert "no weights at carnm: did you mean carn-m" in fails("info", "carnm")
    assert "no weights at sd_x4: did you mean a2f-sd-x4" in fails("info", "sd_x4")
    assert "no weights of CARN-M ship with the package" in fails("upscale", photo, "--weights", "carn-m")
    assert "lapsrn upscales by 2 or 4, not by 3 (--scale)" in fails("info", "lapsrn", "--scale", "3")


HUGE = f'{{"set5": {{"psnr": {"9" * 400}, "ssim": 1}}}}'  # too large for a float


@pytest.mark.parametrize("scores", ["nope", "[]", '{"set5": {}}', '{"set5": {"psnr": "x", "ssim": 1}}', HUGE])
def test_unreadable_scores_and_control_characters_in_metadata_are_shown_harmlessly(
    scores, random_params, tmp_path, capsys
):
    model = Model.from_params(random_params(A2F(scale=2, features=8, blocks=1)))
    save(model, tmp_path / "w.safetensors", {"scores": scores, "note": "a\x1b[31m\nb"})
    assert cli.main(["info", str(tmp_path / "w.safetensors")]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["scores"] == f"unreadable: {scores}"
    assert lines["note"] == r"a\x1b[31m\nb"
