"""`a2f convert`."""

from a2f_jax import cli


def test_weights_are_converted_and_described(weights, tmp_path, capsys):
    target = str(tmp_path / "converted.safetensors")
    assert cli.main(["convert", weights, target]) == 0
    assert cli.main(["info", target]) == 0
    assert "a2f-8x1" in capsys.readouterr().out
