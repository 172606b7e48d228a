"""The Beam pipeline: results, manifest, dead letters, and resuming."""

import importlib.util
import json
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from a2f_jax.model import Model, save
from a2f_jax.models.a2f import A2F

SCRIPT = pathlib.Path(__file__).parents[2] / "launch/beam_upscale.py"


@pytest.fixture(scope="module")
def beam_upscale():
    pytest.importorskip("apache_beam", reason="needs the extra [beam]")
    spec = importlib.util.spec_from_file_location("beam_upscale", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(random_params):
    return Model.from_params(random_params(A2F(scale=2, features=8, blocks=1)))


def _entries(folder, name):
    return sorted((json.loads(x) for f in folder.glob(f"{name}*") for x in f.open()), key=lambda e: e["image"])


def test_results_manifest_and_dead_letters(beam_upscale, model, tmp_path):
    save(model, tmp_path / "weights.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 14, 3), np.uint8)
    (tmp_path / "in/deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.png"):
        Image.fromarray(pixels).save(tmp_path / "in" / name)
    (tmp_path / "in/bad.png").write_bytes(b"?")
    out = tmp_path / "out"
    argv = ["--images", f"{tmp_path}/in/**.png", "--output", str(out), "--weights", f"{tmp_path}/weights.safetensors"]
    (tmp_path / "in/._a.png").write_bytes(b"?")
    for status in ("done", "skipped"):
        beam_upscale.main(argv)
        hidden, *images = _entries(out, "manifest")
        assert (hidden["status"], hidden["reason"]) == ("skipped", "hidden")
        assert [entry["status"] for entry in images] == [status, status]
        (failed,) = _entries(out, "dead_letter")
        assert failed["image"] == f"{tmp_path}/in/bad.png"
        assert "bad.png is not an image or is damaged" in failed["error"]
    for name in ("a.png", "deep/b.png"):
        np.testing.assert_array_equal(np.asarray(Image.open(out / name)), model.upscale(pixels))


def test_existing_files_of_another_size_and_outputs_of_two_images_are_refused(beam_upscale, model, tmp_path):
    save(model, tmp_path / "weights.safetensors")
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png", "b.gif"):
        Image.new("L", (12, 14)).save(tmp_path / "in" / name)
    out = tmp_path / "out"
    out.mkdir()
    Image.new("L", (5, 5)).save(out / "a.png")
    before = (out / "a.png").read_bytes()
    beam_upscale.main(
        ["--images", f"{tmp_path}/in/*", "--output", str(out), "--weights", f"{tmp_path}/weights.safetensors"]
    )
    existing, *twins = _entries(out, "dead_letter")
    assert "a.png exists with another format or size than expected" in existing["error"]
    assert ["have the same output file" in entry["error"] for entry in twins] == [True, True]
    assert (out / "a.png").read_bytes() == before
    assert not (out / "b.png").exists()


def test_only_images_that_are_no_results_are_upscaled(beam_upscale):
    def chosen(root, output, *paths):
        return [path for path in paths if beam_upscale.is_input(path, root, output)]

    paths = ["photos/a.png", "photos/a.txt", "photos/b.JPEG", "photos/up/a.png", "photos/upper/a.png"]
    assert chosen("photos", "photos/up/", *paths) == ["photos/a.png", "photos/b.JPEG", "photos/upper/a.png"]
    assert chosen("photos", "photos", *paths) == [path for path in paths if path != "photos/a.txt"]
    assert chosen("gs://b/in", "gs://b/in/up", "gs://b/in/a.png", "gs://b/in/up/a.png") == ["gs://b/in/a.png"]


def test_results_in_the_folder_of_the_images_are_not_upscaled_again(beam_upscale, model, tmp_path, monkeypatch):
    save(model, tmp_path / "weights.safetensors")
    (tmp_path / "in").mkdir()
    Image.new("RGB", (12, 14)).save(tmp_path / "in/a.png")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        beam_upscale.main(
            ["--images", "in/**.png", "--output", str(tmp_path / "in/up"), "--weights", "weights.safetensors"]
        )
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == ["a.png", "a.png"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--weights", "a2f-sd-x4"], "there is no file .*a2f-sd-x4"),
        (["--weights", "w", "--fromat", "JPEG"], "unrecognized argument --fromat: did you mean --format?"),
    ],
)
def test_arguments_are_checked_before_the_pipeline_runs(beam_upscale, tmp_path, capsys, more, message):
    with pytest.raises(SystemExit):
        beam_upscale.main(["--images", f"{tmp_path}/*.png", "--output", f"{tmp_path}/up", *more])
    assert re.search(message, capsys.readouterr().err)
