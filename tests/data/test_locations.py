import pathlib

import pytest

from a2f_jax.data import default_data_dir
from a2f_jax.data.locations import Assignment, data_root, recorded_assignment, save_assignment, split_sizes
from a2f_jax.errors import UserError


def test_the_environment_names_the_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("A2F_DATA_DIR", "~/sets")
    assert default_data_dir() == data_root(None) == tmp_path / "sets"
    monkeypatch.delenv("A2F_DATA_DIR")
    assert default_data_dir().is_relative_to(tmp_path)


def test_the_environment_may_name_a_bucket(bucket, monkeypatch):
    monkeypatch.setenv("A2F_DATA_DIR", f"{bucket}/sets")
    assert str(default_data_dir()) == str(data_root(None)) == f"{bucket}/sets"


def test_the_folder_is_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert data_root("sets") == data_root(pathlib.Path("sets")) == tmp_path / "sets"


def _save(root, scale, train, validation):
    folder = root / f"x{scale}" / "1.0.0"
    folder.mkdir(parents=True)
    save_assignment(folder, Assignment(frozenset(train), frozenset(validation)))
    return folder


def test_the_assignment_of_the_same_scale_comes_before_that_of_others(tmp_path):
    assert recorded_assignment(tmp_path / "x4" / "1.0.0") == Assignment(frozenset(), frozenset())
    _save(tmp_path, 2, "abc", "d")
    assert recorded_assignment(tmp_path / "x4" / "1.0.0") == Assignment(frozenset("abc"), frozenset("d"))
    own = _save(tmp_path, 4, "ab", "cd")
    assert recorded_assignment(own) == Assignment(frozenset("ab"), frozenset("cd"))


def test_photographs_that_are_new_at_one_scale_are_assigned_as_at_the_others(tmp_path):
    own = _save(tmp_path, 4, "ab", "cd")
    _save(tmp_path, 2, "acef", "bg")
    assert recorded_assignment(own) == Assignment(frozenset("abef"), frozenset("cdg"))


def test_what_is_held_out_at_any_other_scale_counts_as_held_out(tmp_path):
    _save(tmp_path, 2, "abc", "d")
    _save(tmp_path, 3, "abd", "c")
    assert recorded_assignment(tmp_path / "x4" / "1.0.0") == Assignment(frozenset("ab"), frozenset("cd"))


def test_damaged_records_are_named(tmp_path):
    own = _save(tmp_path, 4, "a", "b")
    for name, read in (("assignment", recorded_assignment), ("dataset_info", split_sizes)):
        (own / f"{name}.json").write_text("{")
        with pytest.raises(UserError, match=f"{name}.json is damaged: "):
            read(own)


@pytest.mark.parametrize("content", ["[]", "null", '{"splits": 1, "train": 1}', '{"splits": [[]], "train": [[]]}'])
def test_records_of_another_structure_are_damaged(tmp_path, content):
    folder = tmp_path / "x4" / "1.0.0"
    folder.mkdir(parents=True)
    for name, read in (("dataset_info.json", split_sizes), ("assignment.json", recorded_assignment)):
        (folder / name).write_text(content)
        with pytest.raises(UserError, match=f"{name} is damaged"):
            read(folder)
