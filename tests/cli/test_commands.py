"""What several commands share: the files that they write."""

import re

import pytest


@pytest.fixture
def run_folder(tmp_path):
    """A work folder with a checkpoint, as far as its layout matters."""
    (tmp_path / "run/checkpoints/8/params").mkdir(parents=True)
    return tmp_path / "run"


def writing(command, weights, photo):
    """Returns the arguments of a command, up to the file that it writes, and the name of the file.

    Where possible, the weights do not exist, so that a check after the work has begun would come too late.
    """
    return {
        "average": (["average", "missing", "-o"], "new.safetensors"),
        "convert": (["convert", "missing"], "new.safetensors"),
        "export": (["export", "missing", "-o"], "new.onnx"),
        "compare": (["compare", photo, "--weights", "missing", "-o"], "new.png"),
        "evaluate": (["evaluate", "--weights", "missing", "--datasets", "missing", "--output"], "new"),
        "report": (["report", "--weights", "missing", "--output"], "new"),
        "upscale": (["upscale", photo, "-o", f"{photo}.png", "--weights", weights, "--report"], "new.json"),
        "train": (["train", "--config", "a2f.py", "--compile-for", "h100", "--json"], "new.json"),
    }[command]


COMMANDS = ["average", "convert", "export", "compare", "evaluate", "report", "upscale", "train"]
FILES = [command for command in COMMANDS if command not in ("evaluate", "report")]


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_written_among_the_checkpoints_of_a_run(command, weights, photo, run_folder, fails):
    argv, name = writing(command, weights, photo)
    before = sorted(run_folder.rglob("*"))
    for folder in ("checkpoints", "checkpoints/8"):
        line = fails(*argv, str(run_folder / folder / name))
        assert f"{folder}/{name} is among the checkpoints of a training run: choose another " in line
    assert sorted(run_folder.rglob("*")) == before


@pytest.mark.parametrize("command", FILES)
def test_a_folder_in_place_of_a_file_is_refused(command, weights, photo, tmp_path, fails):
    argv, name = writing(command, weights, photo)
    (tmp_path / name).mkdir()
    overwrite = [] if command == "train" else ["--overwrite"]
    assert f"{name} is a folder: add the name of a file" in fails(*argv, str(tmp_path / name), *overwrite)
    assert not list((tmp_path / name).iterdir())


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_a_folder_in_place_of_one_of_several_files_is_refused(command, weights, photo, tmp_path, fails):
    argv, name = writing(command, weights, photo)
    taken = tmp_path / name / f"{'results' if command == 'evaluate' else 'report'}.md"
    taken.mkdir(parents=True)
    assert f"{taken} is a folder" in fails(*argv, str(tmp_path / name), "--overwrite")
    assert list(taken.parent.iterdir()) == [taken]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_exists_is_not_replaced_unasked(command, weights, photo, tmp_path, fails):
    argv, name = writing(command, weights, photo)
    file = tmp_path / name / f"{'results' if command == 'evaluate' else 'report'}.json"
    file = file if command in ("evaluate", "report") else tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("precious")
    line = fails(*argv, str(tmp_path / name))
    assert f"{file} exists: choose another " in line
    assert line.endswith(" or pass --overwrite") == (command != "train")
    assert file.read_text() == "precious"


def test_figures_that_are_not_those_of_a_report_are_not_replaced_unasked(tmp_path, fails):
    (tmp_path / "figures").mkdir()
    line = fails("report", "--output", str(tmp_path))
    assert f"{tmp_path / 'figures'} exists: choose another --output or pass --overwrite" in line
    assert not list((tmp_path / "figures").iterdir())


@pytest.mark.parametrize(
    "argv",
    [
        ["info", "{}"],
        ["average", "{}", "a2f-sd-x4", "-o", "new.safetensors"],
        ["convert", "{}", "new.safetensors"],
        ["export", "{}", "-o", "new.onnx"],
        ["compare", "photo.png", "--weights", "{}", "-o", "new.png"],
        ["evaluate", "--weights", "{}", "--datasets", "sample"],
        ["report", "--weights", "{}"],
        ["serve", "--port", "0", "--weights", "{}"],
        ["upscale", "photo.png", "--weights", "{}"],
        ["upscale", "photo.png", "--model", "{}"],
    ],
    ids=" ".join,
)
def test_every_command_suggests_the_closest_weights(argv, photo, tmp_path, monkeypatch, fails):
    monkeypatch.chdir(tmp_path)
    line = fails(*(word.replace("{}", "a2f-ds-x4") for word in argv))
    assert "no weights at a2f-ds-x4" in line
    assert re.search(r"did you mean [^?]*a2f-sd-x4", line)
    assert [file.name for file in tmp_path.iterdir()] == ["photo.png"]
