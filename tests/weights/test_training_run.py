"""Which checkpoint of a work folder is read. tests/training writes real ones."""

import asyncio
import contextlib
import errno
import json
import os

import pytest

from a2f_jax.errors import StorageError, UserError
from a2f_jax.weights import training_run


@pytest.fixture
def chosen(tmp_path, monkeypatch):
    """Returns `chosen(checkpoints)`, which writes the metadata of checkpoints and returns the step that is read."""

    def choose(checkpoints):
        for step, (config, scores) in checkpoints.items():
            folder = tmp_path / "checkpoints" / str(step)
            (folder / "about").mkdir(parents=True)
            about = {"step": step, "config": config} if config else None
            (folder / "about/metadata").write_text(json.dumps(about) if about else '{"step": ')
            if scores:
                (folder / "scores.json").write_text(json.dumps(scores))
        best = training_run._find_best(tmp_path / "checkpoints")
        return best and int(best.name)

    return choose


CONFIG = {"data": {"name": "photos", "dir": ""}, "validation_images": 10}
OTHER = {**CONFIG, "validation_images": 20}


@pytest.mark.parametrize(
    ("checkpoints", "step"),
    [
        ({1: (CONFIG, {"psnr": 32.0, "ssim": 0.9}), 2: (CONFIG, {"psnr": 31.0, "ssim": 0.9}), 3: (CONFIG, None)}, 1),
        ({1: (CONFIG, None), 2: (CONFIG, None)}, 2),
        ({1: (CONFIG, {"psnr": 32.0, "ssim": 0.9}), 2: (CONFIG, {"psnr": float("nan"), "ssim": 0.9})}, 1),
        (
            {1: (CONFIG, {"psnr": 30.0, "ssim": 0.9}), 2: (None, {"psnr": 31.0, "ssim": 0.9})},
            1,
        ),  # the metadata of 2 is damaged
        ({1: (None, None)}, None),
        # Scores on different images: by the settings when the checkpoint was saved, or those stored with the scores.
        (
            {
                1: (CONFIG, {"psnr": 40.0, "ssim": 0.9}),
                2: (OTHER, {"psnr": 30.0, "ssim": 0.9}),
                3: (OTHER, {"psnr": 29.0, "ssim": 0.9}),
            },
            2,
        ),
        (
            {
                1: (CONFIG, {"psnr": 40.0, "ssim": 0.9}),
                2: (CONFIG, {"psnr": 30.0, "ssim": 0.9, "validation": ["photos", "", 20]}),
            },
            2,
        ),
    ],
)
def test_the_best_readable_checkpoint_is_chosen(chosen, checkpoints, step):
    assert chosen(checkpoints) == step


def test_a_folder_without_a_readable_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError, match="contains no readable training checkpoint: pass the work folder"):
        training_run.read_checkpoint(tmp_path)


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"step": 1, "config": {}}', '{"step": 1, "config": []}'])
def test_metadata_of_another_structure_is_damaged(tmp_path, content):
    for folder in ("about", "params"):
        (tmp_path / folder).mkdir()
    (tmp_path / "about/metadata").write_text(content)
    with pytest.raises(UserError, match="is damaged"):
        training_run.read_checkpoint(tmp_path)


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"psnr": "high", "ssim": 1}'])
def test_scores_of_another_structure_count_as_no_scores(tmp_path, content):
    (tmp_path / "about").mkdir()
    about = {"step": 1, "config": CONFIG}
    (tmp_path / "about/metadata").write_text(json.dumps(about))
    (tmp_path / "scores.json").write_text(content)
    assert training_run.read_about(tmp_path) == about


def test_an_operation_that_ends_after_a_failed_restore_is_not_an_error():
    usual = type(asyncio.get_event_loop_policy())
    first, second = contextlib.ExitStack(), contextlib.ExitStack()  # two threads, of which the first ends first
    first.enter_context(training_run.restoring)
    second.enter_context(training_run.restoring)
    first.close()
    forgiving = asyncio.new_event_loop()
    second.close()
    strict = asyncio.new_event_loop()
    for loop in (forgiving, strict):
        loop.call_soon_threadsafe(loop.stop)
        loop.run_forever()  # ends, because it was told to stop
        loop.close()
    forgiving.call_soon_threadsafe(print)
    assert type(asyncio.get_event_loop_policy()) is usual
    with pytest.raises(RuntimeError, match="closed"):
        strict.call_soon_threadsafe(print)


@pytest.mark.parametrize(("code", "kind"), [(errno.EACCES, UserError), (errno.ESTALE, StorageError)])
def test_a_checkpoint_that_cannot_be_read_is_not_passed_over(chosen, tmp_path, monkeypatch, code, kind):
    """It may be the best one: other weights than those of yesterday would be read, and nobody would notice."""
    checkpoints = {1: (CONFIG, {"psnr": 30.0, "ssim": 0.9}), 2: (CONFIG, {"psnr": 31.0, "ssim": 0.9})}
    assert chosen(checkpoints) == 2
    read = training_run.read_about

    def fail(checkpoint):
        if checkpoint.name == "2":
            raise OSError(code, os.strerror(code))
        return read(checkpoint)

    monkeypatch.setattr(training_run, "read_about", fail)
    with pytest.raises(
        UserError, match=rf"^cannot read the checkpoint .*checkpoints/2: {os.strerror(code)}$"
    ) as raised:
        training_run.read_checkpoint(tmp_path)
    assert type(raised.value) is kind
