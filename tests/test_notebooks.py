"""The notebooks run from the first cell to the last."""

import json
import pathlib

import nbclient
import nbformat
import numpy as np
import onnxruntime
import pytest

from a2f_jax.images import write_rgb

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"


def execute(name, folder, **parameters):
    """Runs a notebook in a folder, with other parameters than its own, and returns it with its outputs."""
    notebook = nbformat.read(FOLDER / name, as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    cell.source += "".join(f"\n{key} = {value!r}" for key, value in parameters.items())
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}, timeout=600).execute()
    return notebook


def printed(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


def test_the_notebook_on_upscaling_shows_a_gain_over_bicubic_interpolation(tmp_path):
    notebook = execute("upscale.ipynb", tmp_path)
    scores = {line.split()[0]: float(line.split()[1]) for line in printed(notebook).splitlines() if " dB " in line}
    assert scores["A2F"] > scores["bicubic"] + 0.5
    (shown,) = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/jpeg" in output.get("data", ())
    ]
    assert shown


def test_the_notebook_on_training_trains_evaluates_and_exports(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # they take more time than they save
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        write_rgb(photos / f"{i}.png", rng.integers(0, 256, (6, 7, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1))
    small = {"SCALE": 2, "STEPS": 2, "BATCH_SIZE": 2, "PATCH_SIZE": 12, "WORK": "run"}
    notebook = execute("train.ipynb", tmp_path, PHOTOS=str(photos), **small)
    lines = [line for line in printed(notebook).splitlines() if " dB " in line]
    assert [line.split()[0] for line in lines] == ["before", "after"]
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.run(None, {"lr": np.zeros((1, 8, 9, 3), np.uint8)})[0].shape == (1, 16, 18, 3)
    assert (tmp_path / "model.stablehlo").exists()


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.ipynb")), ids=lambda file: file.name)
def test_outputs_are_stored_only_where_a_picture_is_worth_it(file):
    cells = json.loads(file.read_text())["cells"]
    assert not [cell for cell in cells if cell.get("outputs") and "picture" not in cell["metadata"].get("tags", ())]
    assert not [cell for cell in cells if cell.get("execution_count")]
    assert file.stat().st_size < 100_000
