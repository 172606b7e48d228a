"""`a2f data prepare`."""

import os

from a2f_jax import cli


def test_a_dataset_is_prepared(photo, tmp_path, capsys):
    argv = ["data", "prepare", "mine", "--source", os.path.dirname(photo), "--data-dir", str(tmp_path / "data")]
    assert cli.main(argv) == 0
    assert "mine ×4 is ready" in capsys.readouterr().out
