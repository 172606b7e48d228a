"""`a2f convert`."""

import pathlib

from a2f_jax import cli
from a2f_jax.model import load


def test_weights_are_converted_and_described(weights, tmp_path, capsys):
    target = str(tmp_path / "converted.safetensors")
    assert cli.main(["convert", weights, target]) == 0
    assert cli.main(["info", target]) == 0
    assert "a2f-8x1" in capsys.readouterr().out


def test_an_existing_file_is_replaced_only_on_request(weights, tmp_path, fails):
    target = tmp_path / "converted.safetensors"
    target.write_text("precious")
    assert "exists: choose another FILE or pass --overwrite" in fails("convert", weights, str(target))
    assert target.read_text() == "precious"
    assert cli.main(["convert", weights, str(target), "--overwrite"]) == 0
    assert load(target).variant == load(weights).variant


def test_a_tilde_is_the_home_folder_in_both_paths(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "source.safetensors").write_bytes(pathlib.Path(weights).read_bytes())
    assert cli.main(["convert", "~/source.safetensors", "~/new/target.safetensors"]) == 0
    assert (tmp_path / "new" / "target.safetensors").exists()


def test_a_target_that_cannot_be_written_is_refused(weights, tmp_path, fails):
    assert "must end in .safetensors" in fails("convert", weights, str(tmp_path / "converted.pt"))
    assert "cannot write" in fails("convert", weights, "/proc/none/converted.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_serve_several_scales_are_converted_for_one(several_scales, tmp_path, capsys, fails):
    target = str(tmp_path / "vdsr-x3.safetensors")
    assert "(--scale)" in fails("convert", several_scales, target)
    assert cli.main(["convert", several_scales, target, "--scale", "3"]) == 0
    assert "vdsr ×3" in capsys.readouterr().out
    assert load(target).scale == 3
