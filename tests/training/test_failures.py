"""Errors of runs that have begun say how to go on."""

import errno

import jax
import pytest

from a2f_jax import buckets
from a2f_jax.cli.main import main
from a2f_jax.errors import StorageError, UserError
from a2f_jax.training import loop
from a2f_jax.training.checkpoints import Checkpoints
from a2f_jax.training.failures import explaining_failures


@pytest.mark.parametrize(("begun", "code"), [(False, 2), (True, 75)])
def test_a_run_can_be_resumed_if_storage_fails_after_it_has_begun(config, begun, code):
    with pytest.raises(StorageError) as caught, explaining_failures(config, lambda: begun):
        raise StorageError("cannot write gs://runs/lock: service unavailable")
    assert caught.value.exit_code == code


@pytest.mark.parametrize(("begun", "code"), [(False, 2), (True, 75)])
def test_a_file_system_on_a_network_that_fails_for_a_while_is_a_storage_error(config, begun, code):
    with (
        pytest.raises(StorageError, match="storage failed: Stale file handle /runs/lock") as caught,
        explaining_failures(config, lambda: begun),
    ):
        raise OSError(errno.ESTALE, "Stale file handle", "/runs/lock")
    assert caught.value.exit_code == code
    with pytest.raises(IsADirectoryError), explaining_failures(config, lambda: begun):
        raise IsADirectoryError(errno.EISDIR, "Is a directory", "/runs/lock")


@pytest.mark.parametrize(("begun", "code"), [(False, 2), (True, 75)])
def test_a_failure_of_a_bucket_inside_of_a_library_is_a_storage_error(config, begun, code):
    buckets._filesystem("gs")  # sets gcsfs up, which reads its settings when it is imported
    from gcsfs.retry import HttpError

    with pytest.raises(StorageError) as caught, explaining_failures(config, lambda: begun):
        raise HttpError({"code": 503, "message": "Service Unavailable"})
    assert (str(caught.value), caught.value.exit_code) == ("storage failed: Service Unavailable, 503", code)


def test_a_run_whose_checkpoint_cannot_be_read_for_a_while_can_be_resumed(config, tmp_path, monkeypatch):
    config.steps = config.validate_every = 2
    loop.train(config, tmp_path)
    config.steps = 4

    def fail(*_):
        raise ValueError("UNAVAILABLE: Error reading: no answer")

    monkeypatch.setattr(Checkpoints, "_restore", fail)
    with pytest.raises(StorageError, match="cannot read the checkpoint of step 2") as caught:
        loop.train(config, tmp_path)
    assert caught.value.exit_code == 75
    monkeypatch.undo()
    assert loop.train(config, tmp_path).finished


def test_a_run_that_does_not_fit_into_memory_is_one_line_with_remedies(config, data_dir, tmp_path, monkeypatch, capsys):
    def step(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 99 bytes.")

    parallelize = loop.parallelize
    monkeypatch.setattr(loop, "parallelize", lambda *a, **k: parallelize(*a, **k)._replace(step=step))
    with pytest.raises(UserError, match=r"memory of one cpu: reduce config.batch_size=\d+ or .*remat=True$"):
        loop.train(config, tmp_path)
    config.data.placement = "device"
    with pytest.raises(UserError, match=r"remat=True, or set config.data.placement=host$"):
        loop.train(config, tmp_path / "device")


def test_the_command_exits_with_the_code_of_the_error(monkeypatch, capsys):
    def fail(*_, **__):
        error = StorageError("cannot write gs://runs/lock: service unavailable")
        error.exit_code = 75
        raise error

    monkeypatch.setattr(loop, "run_training", fail)
    assert main(["train", "--config", "configs/sample.py", "--workdir", "run"]) == 75
    assert capsys.readouterr().err.endswith("a2f: error: cannot write gs://runs/lock: service unavailable\n")
