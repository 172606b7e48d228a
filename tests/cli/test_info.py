"""`a2f info`."""

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


@pytest.mark.parametrize("scores", ["nope", "[]", '{"set5": {}}', '{"set5": {"psnr": "x", "ssim": 1}}'])
def test_unreadable_scores_and_control_characters_in_metadata_are_shown_harmlessly(
    scores, random_params, tmp_path, capsys
):
    model = Model.from_params(random_params(A2F(scale=2, features=8, blocks=1)))
    save(model, tmp_path / "w.safetensors", {"scores": scores, "note": "a\x1b[31m\nb"})
    assert cli.main(["info", str(tmp_path / "w.safetensors")]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["scores"] == f"unreadable: {scores}"
    assert lines["note"] == r"a\x1b[31m\nb"
