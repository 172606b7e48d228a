"""Saving and loading weights."""

import os
import pickle

import jax
import numpy as np
import pytest
import safetensors.numpy

import a2f_jax
from a2f_jax.errors import UserError
from a2f_jax.model import Model, save
from a2f_jax.models.a2f import A2F
from a2f_jax.weights import name_without_folders, shipped_weights


@pytest.fixture(scope="module")
def model(random_params):
    params = random_params(A2F(scale=2, features=16, blocks=2))
    return Model.from_params(params, {"step": "1000"})


def test_saved_weights_load_with_values_and_metadata(model, tmp_path):
    path = tmp_path / "weights.safetensors"
    save(model, path, {"license": "Apache-2.0"})
    loaded = a2f_jax.load(path)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, model.params)
    assert (loaded.variant, loaded.scale) == ("a2f-16x2", 2)
    assert loaded.metadata == {"step": "1000", "license": "Apache-2.0", "variant": "a2f-16x2", "scale": "2"}
    assert [f.name for f in tmp_path.iterdir()] == ["weights.safetensors"]


def test_other_suffixes_and_unwritable_paths_are_refused(model, tmp_path):
    with pytest.raises(UserError, match=r"must end in \.safetensors"):
        save(model, tmp_path / "weights.npz")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        save(model, tmp_path / "file" / "weights.safetensors")


def test_weights_that_ship_with_the_package_load_by_name():
    for model in (a2f_jax.load("a2f-sd"), a2f_jax.load("a2f-sd", scale=4), a2f_jax.load("a2f-sd-x4")):
        assert (model.variant, model.scale) == ("a2f-sd", 4)
        assert "data" in model.metadata
    assert a2f_jax.load("a2f-sd", scale=2).scale == 2


@pytest.mark.parametrize(("name", "scale"), [("a2f-l", None), ("a2f-sd-x5", None), ("", None)])
def test_a_name_without_weights_is_answered_with_the_names_that_exist(name, scale):
    names = ", ".join(shipped_weights())
    with pytest.raises(UserError, match=rf"no weights at ({name}|'').*, or one of {names}$"):
        a2f_jax.load(name, scale)


def test_a_tilde_is_the_home_folder(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save(model, "~/weights.safetensors")
    assert a2f_jax.load("~/weights.safetensors").scale == 2
    assert [f.name for f in tmp_path.iterdir()] == ["weights.safetensors"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_parameter(model, tmp_path, value):
    params = jax.tree.map(np.array, model.params)
    params["block_01"]["reduce"]["v"][2, 1, 5, 3] = value
    save(Model.from_params(params), tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match=r"weights.safetensors .*block_01.reduce.v contains NaN or infinity"):
        a2f_jax.load(tmp_path / "weights.safetensors")


def test_weights_of_another_scale_are_refused(model, tmp_path):
    save(model, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match="upscales by 2, not by 3"):
        a2f_jax.load(tmp_path / "weights.safetensors", scale=3)


def other_architecture(path):
    safetensors.numpy.save_file({"conv.weight": np.zeros((3, 3), np.float32)}, path)


def huge(path):
    header = b'{"head.bias":{"dtype":"F32","shape":[1073741824],"data_offsets":[0,4294967296]}}'
    start = {".safetensors": len(header).to_bytes(8, "little") + header, ".pt": b"\x80\x02", ".npz": b"PK\x03\x04"}
    path.write_bytes(start[path.suffix])
    os.truncate(path, 2**32 + 88)  # which takes no space on the disk


def eight_bits(path):
    header = b'{"head.bias":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("none.safetensors", lambda path: None, "no weights at"),
        ("empty.safetensors", lambda path: path.write_bytes(b""), "damaged"),
        ("text.safetensors", lambda path: path.write_text("weights"), "damaged"),
        ("other.safetensors", other_architecture, "cannot be used"),
        ("eight-bits.safetensors", eight_bits, "is not a safetensors or PyTorch file, or it is damaged: .*float8_e4m3"),
        ("text.pt", lambda path: path.write_text("weights"), "not a safetensors or PyTorch file"),
        ("pickle.pt", lambda path: path.write_bytes(pickle.dumps([1])), "not a PyTorch state dict"),
        ("unreadable", lambda path: path.symlink_to("/proc/self/mem"), "cannot read"),
        ("folder", lambda path: path.mkdir(), "no readable training checkpoint"),
        ("huge.safetensors", huge, "has 4,294,967,384 bytes, more than the weights of any network here"),
        ("huge.pt", huge, "has 4,294,967,384 bytes, more than the weights of any network here"),
        ("huge.npz", huge, "has 4,294,967,384 bytes, more than the weights of any network here"),
    ],
)
def test_an_error_on_loading_is_one_line_that_names_the_file(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(UserError, match=message) as error:
        a2f_jax.load(tmp_path / name)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_names_that_are_nested_too_deeply_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file({".".join(["a"] * 3000): np.zeros(1, np.float32)}, path)
    with pytest.raises(UserError, match="does not contain weights of a network: a name in it has 3000 parts"):
        a2f_jax.load(path)


def test_a_parameter_inside_another_one_is_damage(tmp_path):
    path = tmp_path / "weights.safetensors"
    for names in (("k", "k.x"), ("k.x.y", "k")):
        safetensors.numpy.save_file({name: np.zeros(1, np.float32) for name in names}, path)
        with pytest.raises(UserError, match=r"is damaged: parameter k\.x(\.y)? cannot be inside parameter k$"):
            a2f_jax.load(path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a2f-sd-x4", "a2f-sd-x4"),
        ("/home/me/runs/a/", "a"),
        ("runs/b.safetensors", "b"),
        ("gs://mine/runs/c/checkpoints/500", "c/checkpoints/500"),
        ("checkpoints/500", "checkpoints/500"),
        ("d\udcff.pt", "d\N{REPLACEMENT CHARACTER}.pt"),
    ],
)
def test_metadata_name_the_weights_that_others_were_made_from_without_folders(path, name):
    assert name_without_folders(path) == name
