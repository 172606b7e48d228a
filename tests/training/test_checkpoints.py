"""Which checkpoints are kept, and what happens on a full disk."""

import errno
import os
import re
import shutil

import jax
import pytest

from a2f_jax.errors import StorageError, UserError
from a2f_jax.files import as_path
from a2f_jax.training.checkpoints import Checkpoints, state_bytes
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
        checkpoints.save(state_at(step))
        checkpoints.record(step, {"psnr": psnr, "ssim": 0.9})
    checkpoints.wait()
    kept = sorted(int(folder.name) for folder in (tmp_path / "checkpoints").iterdir())
    assert kept == [2, 3, 4]
    assert read_about(tmp_path / "checkpoints/2")["psnr"] == 32.0
    # A work folder stands for its best checkpoint.
    params, about = read_checkpoint(tmp_path)
    assert about["step"] == "2"
    jax.tree.map(lambda a, b: (a == b).all() or pytest.fail("not the best"), params, state_at(2).params)


def test_the_best_checkpoint_is_still_known_when_a_run_resumes(config, checkpoints, state_at, tmp_path):
    for step, psnr in ((1, 32.0), (2, 30.0)):
        checkpoints.save(state_at(step))
        checkpoints.record(step, {"psnr": psnr, "ssim": 0.9})
    checkpoints.close()
    config.keep_checkpoints = 1
    resumed = Checkpoints(tmp_path, config, lambda _: None)
    assert resumed.is_scored(1)
    for step in (3, 4):  # the former could not be validated
        resumed.save(state_at(step))
    resumed.wait()
    assert resumed.steps == [1, 4]
    assert read_checkpoint(tmp_path)[1] == {"step": "1", "data": "tiny", "validation_psnr": "32.000"}
    resumed.close()


def test_what_is_restored_is_what_was_saved(checkpoints, state_at):
    checkpoints.save(state_at(7))
    checkpoints.wait()
    restored = checkpoints.restore(state_at(1))
    for have, want in zip(jax.tree.leaves(restored), jax.tree.leaves(state_at(7)), strict=True):
        assert (have == want).all()


def test_a_full_disk_is_reported_before_anything_is_written(checkpoints, state_at, tmp_path, set_free_space):
    checkpoints.save(state_at(3))
    checkpoints.wait()
    set_free_space(10)
    with pytest.raises(UserError, match=r"10 bytes of free space, but the next checkpoint takes .*: step 3 is saved"):
        checkpoints.save(state_at(4))
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["3"]


def test_room_for_all_checkpoints_of_the_run_is_checked_at_the_start(config, checkpoints, state_at, set_free_space):
    config.steps, config.checkpoint_every, config.validate_every = 12, 3, 6
    needed = 4 * state_bytes(state_at(0)) * 5 // 4  # two to keep, the best one, and one being written
    set_free_space(needed - 1)
    with pytest.raises(UserError, match=r"but writing the next 4 checkpoints takes .*: no checkpoint is saved yet"):
        checkpoints.check_space(state_at(0))
    set_free_space(needed)
    checkpoints.check_space(state_at(0))
    config.steps = 6  # only two will be written
    set_free_space(needed // 2)
    checkpoints.check_space(state_at(0))


@pytest.mark.parametrize("name", ["run[lr=1e-3]", "a]b", "a\\b"])
def test_folders_that_orbax_takes_for_patterns_are_refused(config, tmp_path, name):
    # It would write checkpoints that cannot be read, without an error.
    with pytest.raises(UserError, match="choose a work folder whose full path does not contain"):
        Checkpoints(tmp_path / name / "x", config, print)
    assert not (tmp_path / name).exists()


def files_of(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        TypeError("a bug"),
        ValueError("FAILED_PRECONDITION: Error opening: the shapes differ"),
        RuntimeError("RESOURCE_EXHAUSTED: Error allocating"),
    ],
)
def test_an_error_that_is_not_damage_stops_and_touches_nothing(checkpoints, state_at, tmp_path, monkeypatch, error):
    checkpoints.save(state_at(3))
    checkpoints.wait()
    before = files_of(tmp_path)

    def fail(*_):
        raise error

    monkeypatch.setattr(Checkpoints, "_restore", fail)
    with pytest.raises(type(error)):
        checkpoints.restore(state_at(1))
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (PermissionError(13, "not allowed"), UserError, "not allowed"),
        (OSError(24, "Too many open files"), UserError, "Too many open files"),
        (OSError(116, "Stale file handle"), StorageError, "Stale file handle"),
        (
            ValueError("RESOURCE_EXHAUSTED: Failed to open: x [os_error_code='24'] [tensorstore_spec='{}']"),
            UserError,
            "Too many open files",
        ),
        (
            ValueError("UNKNOWN: Error opening x: Too many links [os_error_code='40'] [tensorstore_spec='{}']"),
            UserError,
            os.strerror(40),
        ),
        (
            ValueError("PERMISSION_DENIED: Error opening x [tensorstore_spec='{}']"),
            UserError,
            "PERMISSION_DENIED: Error opening x",
        ),
        (
            ValueError(
                'PERMISSION_DENIED: Error reading local file "/a/b": Failed to open: "/a/b": Permission denied '
                "[os_error_code='13'] [tensorstore_spec='{}']"
            ),
            UserError,
            "Permission denied",
        ),
        (
            ValueError("UNKNOWN: Error opening driver: [errno 5: Input/output error] [tensorstore_spec='{}']"),
            StorageError,
            "UNKNOWN: Error opening driver: [errno 5: Input/output error]",
        ),
        (
            ValueError("UNAVAILABLE: Error reading: no answer [tensorstore_spec='{}']"),
            StorageError,
            "UNAVAILABLE: Error reading: no answer",
        ),
    ],
)
def test_storage_that_fails_is_not_damage(checkpoints, state_at, tmp_path, monkeypatch, error, kind, reason):
    checkpoints.save(state_at(3))
    checkpoints.wait()
    before = files_of(tmp_path)

    def fail(*_):
        raise error

    monkeypatch.setattr(Checkpoints, "_restore", fail)
    message = rf"cannot read the checkpoint of step 3 in .*: {re.escape(reason)}\. Check the file system, then resume$"
    with pytest.raises(UserError, match=message) as raised:
        checkpoints.restore(state_at(1))
    assert type(raised.value) is kind
    assert files_of(tmp_path) == before


def test_storage_that_fails_while_the_damage_is_looked_for_is_not_damage(checkpoints, state_at, tmp_path, monkeypatch):
    checkpoints.save(state_at(3))
    checkpoints.wait()
    before = files_of(tmp_path)

    def fail(*_):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_restore", lambda *_: 1 / 0)
        patch.setattr(Checkpoints, "_damage", fail)
        with pytest.raises(
            StorageError, match=r"cannot read the checkpoint of step 3 in .*: Stale file handle\. Check"
        ):
            checkpoints.restore(state_at(1))
    assert files_of(tmp_path) == before


def arrays_of(step):
    """The files that hold the values of the parameters, which Orbax names at random."""
    return sorted((step / "params/ocdbt.process_0/d").iterdir()) + sorted((step / "params/d").iterdir())


def cut(step):
    for file in arrays_of(step):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def zero(step):
    for file in arrays_of(step):
        file.write_bytes(bytes(file.stat().st_size))


def lose(step):
    for file in arrays_of(step):
        file.unlink()


# None of what is still being read when the damage is found may end in a traceback.
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "damage",
    [
        cut,
        zero,
        lose,
        lambda step: shutil.rmtree(step / "optimizer"),
        lambda step: (step / "about/metadata").unlink(),
        lambda step: (step / "about/metadata").write_text('{"step": 4, '),
    ],
)
def test_a_damaged_checkpoint_is_moved_aside_and_the_previous_one_used(config, state_at, tmp_path, damage):
    messages = []
    checkpoints = Checkpoints(tmp_path, config, messages.append)
    for step in (3, 4):
        checkpoints.save(state_at(step))
    checkpoints.wait()
    damage(tmp_path / "checkpoints/4")
    restored = checkpoints.restore(state_at(1))
    assert int(restored.step) == 3
    (message,) = messages
    assert "checkpoint of step 4 is damaged and was moved to" in message
    assert "<" not in message  # no representations of objects
    assert [folder.name.split("-")[0] for folder in (tmp_path / "damaged").iterdir()] == ["4"]
    assert checkpoints.steps == [3]
    checkpoints.close()


def test_a_damaged_checkpoint_in_a_bucket_is_moved_aside_and_an_incomplete_one_is_not_used(config, state_at, bucket):
    workdir, messages = as_path(f"{bucket}/run"), []
    checkpoints = Checkpoints(workdir, config, messages.append)
    for step in (3, 4):
        checkpoints.save(state_at(step))
    checkpoints.record(4, {"psnr": 30.0, "ssim": 0.9})
    checkpoints.close()
    (workdir / "checkpoints/4/commit_success.txt").unlink()  # as if the run had been killed before it was complete
    assert read_checkpoint(workdir)[1]["step"] == "3"
    (workdir / "checkpoints/3/about/metadata").unlink()
    checkpoints = Checkpoints(workdir, config, messages.append)
    assert checkpoints.steps == [3]
    with pytest.raises(UserError, match=f"all checkpoints in {workdir} are damaged"):
        checkpoints.restore(state_at(1))
    (message,) = messages
    assert f"checkpoint of step 3 is damaged and was moved to {workdir}/damaged/3-" in message
    assert checkpoints.steps == []
    checkpoints.close()


def test_damaged_scores_count_as_no_scores(config, checkpoints, state_at, tmp_path):
    checkpoints.save(state_at(3))
    checkpoints.record(3, {"psnr": 30.0, "ssim": 0.9})
    checkpoints.close()
    (tmp_path / "checkpoints/3/scores.json").write_text("{")
    resumed = Checkpoints(tmp_path, config, lambda _: None)
    assert not resumed.is_scored(3)
    assert int(resumed.restore(state_at(1)).step) == 3
    resumed.close()


def test_scores_on_other_validation_images_are_not_compared(config, checkpoints, state_at, tmp_path):
    for step, psnr in ((1, 40.0), (2, 35.0)):
        checkpoints.save(state_at(step))
        checkpoints.record(step, {"psnr": psnr, "ssim": 0.9})
    checkpoints.close()
    config.validation_images += 1
    resumed = Checkpoints(tmp_path, config, lambda _: None)
    assert not resumed.is_scored(2)
    # The best on the former images is kept, because nobody asked to delete it.
    for step, psnr in ((3, 31.0), (4, 30.0), (5, 30.5)):
        resumed.save(state_at(step))
        resumed.record(step, {"psnr": psnr, "ssim": 0.9})
    resumed.save(state_at(6))
    resumed.close()
    assert sorted(int(folder.name) for folder in (tmp_path / "checkpoints").iterdir()) == [1, 3, 5, 6]
    assert read_checkpoint(tmp_path)[1]["step"] == "3"


def test_scores_on_images_that_were_prepared_again_are_not_compared(config, state_at, tmp_path):
    messages = []
    checkpoints = Checkpoints(tmp_path, config, messages.append)
    for step, psnr, digest in ((1, 40.0, "old"), (2, 35.0, "old"), (3, 30.0, "new"), (4, 31.0, "new")):
        checkpoints.identify_images(digest)
        checkpoints.save(state_at(step))
        checkpoints.record(step, {"psnr": psnr, "ssim": 0.9})
    checkpoints.close()
    (message,) = messages
    assert "the scores of 2 checkpoints on the former images no longer count" in message
    assert read_checkpoint(tmp_path)[1]["step"] == "4"


def test_scores_on_the_same_images_are_compared_although_their_folder_has_another_name(config, state_at, tmp_path):
    # Such as on hosts that have their own copies, or if the name of a folder is spelled differently.
    first = Checkpoints(tmp_path, config, lambda _: None)
    first.identify_images("digest")
    first.save(state_at(1))
    first.record(1, {"psnr": 40.0, "ssim": 0.9})
    first.close()
    config.data.dir = str(tmp_path / "copy")
    config.keep_checkpoints = 1
    messages = []
    resumed = Checkpoints(tmp_path, config, messages.append)
    resumed.identify_images("digest")
    assert resumed.is_scored(1)
    for step in (2, 3):
        resumed.save(state_at(step))
        resumed.record(step, {"psnr": 30.0, "ssim": 0.9})
    resumed.close()
    assert resumed.steps == [1, 3]
    assert read_checkpoint(tmp_path)[1]["step"] == "1"
    assert messages == []


def test_scores_of_earlier_versions_without_a_digest_of_the_images_count(config, checkpoints, state_at, tmp_path):
    checkpoints.save(state_at(1))
    checkpoints.record(1, {"psnr": 40.0, "ssim": 0.9})
    checkpoints.identify_images("digest")
    assert checkpoints.is_scored(1)
    checkpoints.save(state_at(2))
    checkpoints.record(2, {"psnr": 30.0, "ssim": 0.9})
    checkpoints.wait()
    assert read_checkpoint(tmp_path)[1]["step"] == "1"


def test_closing_after_a_failure_to_write_releases_the_resources(config, tmp_path, monkeypatch):
    opened = Checkpoints(tmp_path, config, lambda _: None)
    closed = []

    def fail():
        raise ValueError("the disk fails")

    monkeypatch.setattr(opened._manager, "wait_until_finished", fail)
    monkeypatch.setattr(opened._manager, "close", lambda: closed.append(True))
    with pytest.raises(UserError, match=r"the disk fails; no checkpoint is saved yet"):
        opened.close()
    assert closed


@pytest.mark.parametrize(
    ("reason", "kind", "remedy"),
    [
        ("RESOURCE_EXHAUSTED: Error writing: [errno 28: No space left on device]", UserError, "Free some space"),
        ("UNAVAILABLE: Error writing: timed out", StorageError, "Check the file system"),
    ],
)
def test_only_a_full_disk_would_fail_again(checkpoints, state_at, monkeypatch, reason, kind, remedy):
    def fail(*_, **__):
        raise ValueError(reason)

    monkeypatch.setattr(checkpoints._manager, "save", fail)
    with pytest.raises(UserError, match=rf"no checkpoint is saved yet\. {remedy}, then resume") as caught:
        checkpoints.save(state_at(1))
    assert type(caught.value) is kind
