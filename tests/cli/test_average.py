"""`a2f average`."""

import os
import pathlib
import shutil

import jax
import numpy as np
import pytest

from a2f_jax import cli
from a2f_jax.files import as_path
from a2f_jax.model import Model, load, save
from a2f_jax.models.a2f import A2F


@pytest.fixture(scope="module")
def files(tmp_path_factory, random_params):
    """Three weights of one network."""
    paths = [str(tmp_path_factory.mktemp("average") / f"{seed}.safetensors") for seed in range(3)]
    for seed, path in enumerate(paths):
        save(Model.from_params(random_params(A2F(scale=2, features=4, blocks=1), seed)), path, {"step": str(seed)})
    return paths


def test_the_written_weights_are_the_means_of_the_given_ones(files, tmp_path, capsys):
    output = tmp_path / "average.safetensors"
    assert cli.main(["average", *files, "-o", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}: a2f-4x1 ×2, the average of 3\n"
    found, given = load(output), [load(file).params for file in files]
    jax.tree.map(
        lambda mean, *each: np.testing.assert_array_equal(mean, np.float32(np.mean(each, 0, np.float64))),
        found.params,
        *given,
    )
    assert found.metadata["average_of"] == "0, 1, 2"  # without the folders of whoever made it
    assert "step" not in found.metadata


def test_names_that_are_no_text_are_averaged(files, tmp_path):
    path = str(tmp_path / os.fsdecode(b"t\xff.safetensors"))
    shutil.copy(files[0], path)
    assert cli.main(["average", path, files[1], "-o", str(tmp_path / "average.safetensors")]) == 0
    about = load(tmp_path / "average.safetensors").metadata["average_of"]
    assert about == "t\N{REPLACEMENT CHARACTER}, 1"


def test_an_existing_file_is_replaced_only_on_request(files, tmp_path, fails):
    output = tmp_path / "average.safetensors"
    output.write_text("precious")
    assert "exists: choose another --output or pass --overwrite" in fails("average", *files, "-o", str(output))
    assert output.read_text() == "precious"
    assert cli.main(["average", *files, "-o", str(output), "--overwrite"]) == 0
    assert load(output).scale == 2


@pytest.mark.parametrize(
    ("features", "scale", "message"),
    [
        (8, 2, "other.safetensors is a2f-8x1 ×2, but 0.safetensors is a2f-4x1 ×2: average weights of one network"),
        (4, 3, "other.safetensors is a2f-4x1 ×3, but 0.safetensors is a2f-4x1 ×2: average weights of one network"),
    ],
)
def test_weights_of_another_network_or_scale_are_refused(
    files, tmp_path, fails, random_params, features, scale, message
):
    other = tmp_path / "other.safetensors"
    save(Model.from_params(random_params(A2F(scale=scale, features=features, blocks=1))), other)
    assert message in fails("average", files[0], str(other), "-o", str(tmp_path / "out.safetensors"))
    assert not (tmp_path / "out.safetensors").exists()


def test_what_cannot_be_averaged_or_written_is_refused(files, tmp_path, fails):
    output = str(tmp_path / "out.safetensors")
    assert "at least two" in fails("average", files[0], "-o", output)
    assert "the same weights are given twice" in fails("average", files[0], files[0], "-o", output)
    assert "no weights at nowhere" in fails("average", files[0], "nowhere", "-o", output)
    assert "out.pt must end in .safetensors: choose another" in fails("average", *files, "-o", str(tmp_path / "out.pt"))
    assert "cannot write" in fails("average", *files, "-o", "/proc/none/out.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_the_same_weights_under_two_paths_are_refused(files, tmp_path, fails):
    link = tmp_path / "link.safetensors"
    link.symlink_to(files[1])
    message = fails("average", *files, str(link), "-o", str(tmp_path / "out.safetensors"))
    assert "1.safetensors and link.safetensors are the same weights: leave out one of them" in message
    assert list(tmp_path.iterdir()) == [link]


def test_a_pattern_in_a_bucket_stands_for_what_matches(files, bucket, fails, capsys):
    for file in files[:2]:
        (as_path(bucket) / os.path.basename(file)).write_bytes(pathlib.Path(file).read_bytes())
    assert cli.main(["average", f"{bucket}/*.safetensors", "-o", f"{bucket}/average.safetensors"]) == 0
    assert capsys.readouterr().out.endswith("the average of 2\n")
    assert load(f"{bucket}/average.safetensors").metadata["average_of"] == "0, 1"
    # The result of the first time is not averaged with what it is the average of.
    assert cli.main(["average", f"{bucket}/*.safetensors", "-o", f"{bucket}/average.safetensors", "--overwrite"]) == 0
    assert load(f"{bucket}/average.safetensors").metadata["average_of"] == "0, 1"
    assert "nothing in the bucket matches" in fails("average", f"{bucket}/*.pt", "-o", f"{bucket}/b.safetensors")
