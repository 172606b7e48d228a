"""Which checkpoints are kept, and what happens on a full disk."""

import collections
import shutil

import jax
import pytest

from a2f_jax.errors import UserError
from a2f_jax.training.checkpoints import Checkpoints
from a2f_jax.training.optimizer import make_optimizer
from a2f_jax.training.state import TrainState
from a2f_jax.weights.training_run import read_about, read_checkpoint


@pytest.fixture
def state_at(config, network, random_params):
    """Returns `state_at(step)`, which makes a state whose parameters identify the step."""

    def make(step):
        params = jax.tree.map(jax.numpy.asarray, random_params(network, seed=step))
        return TrainState(jax.numpy.int32(step), params, params, make_optimizer(config).init(params))

    return make


@pytest.fixture
def checkpoints(config, tmp_path):
    config.keep_checkpoints = 2
    opened = Checkpoints(tmp_path, config, lambda _: None)
    yield opened
    opened.close()


def test_the_last_and_the_best_are_kept(checkpoints, state_at, tmp_path):
    for step, psnr in ((1, 30.0), (2, 32.0), (3, 31.0), (4, 30.5)):
        checkpoints.save(state_at(step), {"psnr": psnr, "ssim": 0.9})
    checkpoints.wait()
    kept = sorted(int(folder.name) for folder in (tmp_path / "checkpoints").iterdir())
    assert kept == [2, 3, 4]
    assert read_about(tmp_path / "checkpoints/2")["psnr"] == 32.0
    # A work folder stands for its best checkpoint.
    params, about = read_checkpoint(tmp_path)
    assert about["step"] == "2"
    jax.tree.map(lambda a, b: (a == b).all() or pytest.fail("not the best"), params, state_at(2).params)


def test_what_is_restored_is_what_was_saved(checkpoints, state_at):
    checkpoints.save(state_at(7), None)
    checkpoints.wait()
    restored = checkpoints.restore(state_at(1))
    for have, want in zip(jax.tree.leaves(restored), jax.tree.leaves(state_at(7)), strict=True):
        assert (have == want).all()


def test_a_full_disk_is_reported_before_anything_is_written(checkpoints, state_at, tmp_path, monkeypatch):
    checkpoints.save(state_at(3), None)
    checkpoints.wait()
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**30, 2**30, 10))
    with pytest.raises(UserError, match=r"the disk has only 0 MB left; step 3 is safe"):
        checkpoints.save(state_at(4), None)
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["3"]
