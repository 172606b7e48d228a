"""Runs that make LR of HR: the same patches whatever the devices, and after the run has resumed."""

import json
import shutil

import jax
import numpy as np
import pytest

import a2f_jax
from a2f_jax.configs import photo
from a2f_jax.data import open_pairs
from a2f_jax.errors import UserError
from a2f_jax.training.inputs import degrading, open_training_data
from a2f_jax.training.loop import train
from a2f_jax.weights.training_run import read_checkpoint


def small(photo_dir):
    config = photo.get_config("sd_x2")
    with config.unlocked():
        config.model.features, config.model.blocks = 4, 1
    config.init, config.data.dir, config.data.patch_size = "", str(photo_dir), 8
    config.optimizer.name, config.optimizer.schedule, config.optimizer.warmup = "adam", "halving", 0
    config.batch_size, config.steps = 8, 4
    config.log_every, config.checkpoint_every, config.validate_every = 1, 2, 4
    return config


@pytest.fixture
def config(photo_dir):
    return small(photo_dir)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, photo_dir):
    """An uninterrupted run of four steps."""
    workdir = tmp_path_factory.mktemp("whole")
    train(small(photo_dir), workdir)
    return workdir


def metrics_of(workdir, kind, name):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line[name] for line in lines if line["kind"] == kind]


def test_a_run_in_two_parts_ends_with_the_same_bits(config, whole, tmp_path):
    for config.steps in (2, 4):
        train(config, tmp_path)
    whole_params, params = (read_checkpoint(workdir)[0] for workdir in (whole, tmp_path))
    jax.tree.map(np.testing.assert_array_equal, params, whole_params)


@pytest.mark.parametrize(
    "changes",
    [
        {"spmd": "pmap"},
        {"data.placement": "device", "steps_per_dispatch": 2},
    ],
    ids=str,
)
def test_the_patches_are_the_same_however_the_step_gets_them(config, whole, tmp_path, changes):
    config.log_every = 2
    config.update_from_flattened_dict(changes)
    train(config, tmp_path)
    want = np.reshape(metrics_of(whole, "train", "loss"), (2, 2)).mean(1)
    # The degradations are the same; the surrounding programs may round differently.
    np.testing.assert_allclose(metrics_of(tmp_path, "train", "loss"), want, rtol=1e-4)


def test_what_the_step_gets_becomes_pairs_of_degraded_images(config):
    patches, _ = open_training_data(config, 2)
    batch = patches.batch(0)
    assert set(batch) == {"hr", "key"}
    assert len(np.unique(np.concatenate([patches.batch(step)["key"] for step in range(9)]), axis=0)) == 72
    pairs = jax.eval_shape(degrading(config, 2), batch)
    assert {name: (x.shape, str(x.dtype)) for name, x in pairs.items()} == {
        "lr": ((8, 8, 8, 3), "uint8"),
        "hr": ((8, 16, 16, 3), "uint8"),
    }


def test_held_out_images_are_degraded_alike_in_every_run(config, photo_dir):
    _, images = open_training_data(config, 2)
    config.seed = 1
    _, again = open_training_data(config, 2)
    held_out = open_pairs("photos", scale=2, data_dir=photo_dir)
    assert len(images) == len(held_out) == 3
    for (lr, hr), (other, _), pair in zip(images, again, held_out, strict=True):
        np.testing.assert_array_equal(hr, pair.hr)
        np.testing.assert_array_equal(lr, other)
        assert lr.shape == pair.lr.shape
    assert any((lr != pair.lr).mean() > 0.5 for (lr, _), pair in zip(images, held_out, strict=True))


def test_a_run_tells_what_lr_is_made_of_and_its_weights_remember_it(whole):
    assert "LR images are made of HR images" in (whole / "train.log").read_text()
    assert a2f_jax.load(whole).metadata["degradation"] == "photo"


def test_scores_under_other_degradations_are_not_compared(config, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    config.degradation.jpeg_quality = (1, 1)
    train(config, tmp_path / "run", accept_changes=True)  # validates the last checkpoint again
    before, now = metrics_of(tmp_path / "run", "validation", "psnr")
    assert now < before


def test_runs_start_from_the_shipped_weights_where_there_are_some():
    assert [photo.get_config(run).init for run in ("sd_x2", "s_x4", "s_x3")] == ["a2f-sd-x2", "a2f-s-x4", ""]


def test_images_without_room_for_a_patch_are_named_with_a_remedy(config, tmp_path):
    config.data.patch_size = 30
    message = r"patch_size=30 requires 64×64 LR pixels to degrade, .* has 48×40: use smaller"
    with pytest.raises(UserError, match=message):
        train(config, tmp_path)
