"""`a2f data prepare`."""

import argparse
import inspect

import numpy as np
import pytest

from a2f_jax import cli
from a2f_jax.cli import data
from a2f_jax.data import prepare as prepare_dataset
from a2f_jax.images import write_rgb


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(3):
        write_rgb(tmp_path / "photos" / f"{i}.png", rng.integers(0, 256, (40, 44, 3), dtype=np.uint8))
    return str(tmp_path / "photos")


@pytest.fixture
def prepare(tmp_path):
    return ["data", "prepare", "mine", "--scale", "2", "--min-size", "20", "--data-dir", str(tmp_path / "data")]


def test_a_dataset_is_prepared(prepare, photos, tmp_path, capsys):
    assert cli.main([*prepare, "--source", photos]) == 0
    folder = tmp_path / "data/mine/x2/1.0.0"
    assert capsys.readouterr().out == f"mine ×2 is ready in {folder}: 2 images for training, 1 image for validation\n"


def test_a_dataset_without_validation_images_is_reported_at_once(prepare, photos, capsys):
    assert cli.main([*prepare, "--source", photos, "--validation", "0"]) == 0
    assert "which `a2f train` requires: prepare the dataset again with --validation N" in capsys.readouterr().out


def test_bad_photographs_are_listed_and_can_be_skipped(prepare, photos, fails, capsys):
    for name in ("a.png", "b.jpg"):
        with open(f"{photos}/{name}", "wb") as file:
            file.write(b"no image")
    line = fails(*prepare, "--source", photos)
    assert "2 of 5 images cannot be used" in line
    assert "a.png" in line and "b.jpg" in line
    assert line.endswith("leave them out (--skip-bad)")
    assert cli.main([*prepare, "--source", photos, "--skip-bad"]) == 0
    assert "2 images for training, 1 image for validation" in capsys.readouterr().out


def test_errors_name_the_flag_that_remedies_them(prepare, photos, fails):
    assert cli.main([*prepare, "--source", photos]) == 0
    assert fails(*prepare, "--source", photos, "--validation", "2").endswith("(--overwrite)")
    assert fails(*prepare, "--source", photos, "--validation", "3", "--overwrite").endswith("(--validation)")
    assert fails(*prepare[:2], "other", *prepare[3:]).endswith("(--source)")


def test_the_home_folder_is_expanded(prepare, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert cli.main([*prepare[:-1], "~/sets", "--source=~/photos"]) == 0
    assert (tmp_path / "sets/mine/x2/1.0.0").is_dir()
    assert not (tmp_path / "~").exists()


def test_a_dataset_is_prepared_in_a_bucket(prepare, photos, bucket, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*map(str, prepare[:-1]), bucket, "--source", str(photos)]) == 0
    assert f"is ready in {bucket}/mine/x2/1.0.0: " in capsys.readouterr().out
    assert not (tmp_path / "gs:").exists()


def test_the_command_line_and_the_library_have_the_same_defaults():
    parser = argparse.ArgumentParser()
    data.add(parser.add_subparsers())
    args = parser.parse_args(["data", "prepare", "mine"])
    parameters = inspect.signature(prepare_dataset).parameters
    for name in ("data_dir", "source", "lr_source", "validation", "min_size", "skip_bad", "overwrite"):
        assert getattr(args, name) == parameters[name].default
