"""The command `a2f evaluate`."""

import io
import json
import pathlib
import shutil
import sys

import numpy as np
import pytest

from a2f_jax import cli
from a2f_jax.images import write_rgb


@pytest.fixture
def benchmark(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(2):
        write_rgb(tmp_path / f"data/Set5/HR/{i}.png", rng.integers(0, 256, (32, 36, 3), dtype=np.uint8))
    return ["--data", str(tmp_path / "data"), "--datasets", "set5"]


def test_evaluate_prints_and_writes_the_scores_of_every_image(weights, benchmark, tmp_path, capsys):
    argv = ["evaluate", "--weights", weights, *benchmark]
    assert cli.main([*argv, "--output", str(tmp_path / "results")]) == 0
    table = capsys.readouterr().out
    assert "set5" in table
    assert "a2f-8x1 ×2" in table
    (result,) = json.loads((tmp_path / "results/results.json").read_text())
    assert (result["model"], result["scale"], result["weights"]) == ("a2f-8x1", 2, weights)
    assert set(result["datasets"]["set5"]["images"]) == {"0", "1"}


def test_earlier_results_are_replaced_only_on_request(weights, benchmark, tmp_path, fails):
    results = tmp_path / "results"
    results.mkdir()
    (results / "results.md").write_text("precious")
    argv = ["evaluate", "--bicubic", "2", *benchmark, "--output", str(results)]
    assert "results.md exists: choose another --output or pass --overwrite" in fails(*argv)
    assert [(file.name, file.read_text()) for file in results.iterdir()] == [("results.md", "precious")]
    assert cli.main([*argv, "--overwrite"]) == 0
    assert "bicubic" in (results / "results.md").read_text()


def test_several_weights_and_bicubic_interpolation_share_one_table(weights, benchmark, tmp_path, capsys):
    other = tmp_path / "other.safetensors"
    shutil.copy(weights, other)
    output = tmp_path / "results"
    argv = ["evaluate", "--weights", weights, str(other), "--bicubic", "2", *benchmark, "--output", str(output)]
    assert cli.main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["dataset", "model", "weights", "images"]
    rows = [line.split() for line in lines if line.startswith("set5")]
    assert [row[1] for row in rows] == ["bicubic", "a2f-8x1", "a2f-8x1"]
    assert [row[3] for row in rows[1:]] == [weights, str(other)]
    assert rows[1][4:] == rows[2][4:]
    assert [r["weights"] for r in json.loads((output / "results.json").read_text())] == [None, weights, str(other)]


def test_a_folder_of_images_is_evaluated_beside_a_benchmark_set(benchmark, photo, capsys):
    *data, _ = benchmark
    folder = f"{pathlib.Path(photo).parent}/"
    assert cli.main(["evaluate", "--bicubic", "2", *data, f"set5,{folder}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["set5", folder]
    assert lines[-1].split()[3] == "3"  # its subfolder contains the two images of Set5


def test_scores_of_compressed_lr_are_named_as_such(weights, benchmark, tmp_path, capsys):
    argv = ["evaluate", "--weights", weights, "--bicubic", "2", *benchmark, "--jpeg", "30"]
    assert cli.main([*argv, "--output", str(tmp_path / "results")]) == 0
    assert capsys.readouterr().out.count("JPEG 30") == 2
    results = json.loads((tmp_path / "results/results.json").read_text())
    assert [(r["model"], r["jpeg"]) for r in results] == [("bicubic", 30), ("a2f-8x1", 30)]


def test_the_flag_for_the_folder_of_datasets_is_named(tmp_path, fails):
    argv = ["evaluate", "--bicubic", "4", "--data", str(tmp_path / "typo"), "--datasets"]
    assert "pass the folder that contains Set5/" in fails(*argv, "set5")
    for dataset in ("set5", "sample"):
        assert fails(*argv, dataset).endswith("(--data)")
    assert not list(tmp_path.iterdir())


def test_a_benchmark_set_is_measured_once_under_any_of_its_names(tmp_path, capsys):
    write_rgb(tmp_path / "data/BSD100/HR/0.png", np.zeros((32, 36, 3), np.uint8))
    assert cli.main(["evaluate", "--bicubic", "2", "--data", str(tmp_path / "data"), "--datasets", "B100,bsd100"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == ["b100"]


def test_evaluate_without_a_model_is_an_error(benchmark, fails):
    assert "pass --weights, --bicubic, or both" in fails("evaluate", *benchmark)


def test_the_same_weights_twice_are_an_error(weights, benchmark, fails):
    assert weights in fails("evaluate", "--weights", weights, weights, *benchmark)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_the_table_is_printed_in_any_encoding(benchmark, monkeypatch, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    assert cli.main(["evaluate", "--bicubic", "2", *benchmark]) == 0
    stream.flush()
    printed = stream.buffer.getvalue().decode(encoding)
    assert f"bicubic {'x' if encoding == 'ascii' else '×'}2" in printed
    assert "?" not in printed


def test_weights_that_serve_several_scales_are_evaluated_at_the_given_one(several_scales, benchmark, capsys):
    assert cli.main(["evaluate", "--weights", several_scales, "--scale", "2", *benchmark]) == 0
    assert "vdsr ×2" in capsys.readouterr().out


def test_weights_that_serve_several_scales_need_the_flag(several_scales, benchmark, fails):
    line = fails("evaluate", "--weights", several_scales, *benchmark)
    assert line.endswith("VDSR do not tell their scale: pass one of 2, 3, 4 (--scale)")
    line = fails("report", "--weights", several_scales)
    assert line.endswith("--scale SCALE, and use the result")  # this command has no such flag


def test_weights_of_another_scale_are_refused(weights, benchmark, fails):
    assert "upscales by 2, not by 3" in fails("evaluate", "--weights", weights, "--scale", "3", *benchmark)
