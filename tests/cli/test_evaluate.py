"""The command `a2f evaluate`."""

import json

import numpy as np

from a2f_jax import cli
from a2f_jax.images import write_rgb


def test_a_benchmark_is_evaluated(weights, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for i in range(2):
        write_rgb(tmp_path / f"Set5/HR/{i}.png", rng.integers(0, 256, (32, 36, 3), dtype=np.uint8))
    argv = ["evaluate", "--weights", weights, "--data", str(tmp_path), "--datasets", "set5"]
    assert cli.main([*argv, "--output", str(tmp_path / "results")]) == 0
    table = capsys.readouterr().out
    assert "set5" in table
    assert "a2f-8x1 ×2" in table
    result = json.loads((tmp_path / "results/results.json").read_text())
    assert (result["model"], result["scale"], result["weights"]) == ("a2f-8x1", 2, weights)
    assert set(result["datasets"]["set5"]["images"]) == {"0", "1"}
