"""The progress reports of a run."""

import errno
import json
import os
import pathlib
import sys

import numpy as np
import pytest

from a2f_jax.errors import UserError
from a2f_jax.files import as_path
from a2f_jax.images import read_rgb
from a2f_jax.training.history import read_history
from a2f_jax.training.monitor import Monitor

METRICS = {"loss": 7.25, "grad_norm": 1.0, "learning_rate": 1e-3}


@pytest.fixture
def ticks(monkeypatch):
    """A clock controlled by the test."""
    now = [100.0]
    monkeypatch.setattr("a2f_jax.training.monitor.time.perf_counter", lambda: now[0])
    return now


def test_half_a_line_that_a_failed_machine_left_does_not_spoil_the_next_one(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 3, "kind": "train", "loss": 7.0}\n{"step": 6, "ki')
    with Monitor(tmp_path) as monitor:
        monitor.start(step=3, steps=100, images_per_step=16)
        monitor.advance(5)
        monitor.report(METRICS)
    assert [row["step"] for row in read_history(tmp_path)] == [3, 5]


def test_a_file_system_that_fails_does_not_end_the_run(tmp_path, capsys, monkeypatch):
    with Monitor(tmp_path) as monitor:
        monitor.start(step=0, steps=100, images_per_step=16)

        class Stale:
            def write(self, text):
                raise OSError(errno.ESTALE, "Stale file handle")

        with monkeypatch.context() as failing:
            failing.setattr(monitor, "_metrics", Stale())
            failing.setattr(monitor, "_log", Stale())
            monitor.advance(5)
            monitor.report(METRICS)
        monitor.advance(10)
        monitor.report(METRICS)
    assert [row["step"] for row in read_history(tmp_path)] == [10]
    assert capsys.readouterr().err.count("Stale file handle): training goes on without it") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_disk_that_is_full_at_the_end_does_not_make_a_run_fail(tmp_path, capsys):
    (tmp_path / "train.log").symlink_to("/dev/full")
    with Monitor(tmp_path) as monitor:
        monitor.start(step=0, steps=1, images_per_step=16)
        monitor.log("a line that stays in the buffer")
    assert capsys.readouterr().err.count("No space left on device): training goes on without it") == 1


def test_speed_excludes_pauses_and_includes_waiting(tmp_path, ticks, capsys):
    with Monitor(tmp_path) as monitor:
        monitor.start(step=10, steps=100, images_per_step=16)
        with monitor.waiting_for_data():
            ticks[0] += 1
        ticks[0] += 3
        with monitor.pause():
            ticks[0] += 50
        monitor.advance(30)
        monitor.report(METRICS)
    (line,) = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    # 20 steps of 16 images in 4 seconds, 1 of which was spent waiting.
    assert line == {"step": 30, "kind": "train", **METRICS, "images_per_second": 80.0, "waiting_percent": 25.0}
    shown = capsys.readouterr().err
    assert "step 30/100  loss 7.250, 80 images/s, lr 0.001, waiting for data 25.0 %, ETA 0:00:14" in shown
    assert "step 30/100" in (tmp_path / "train.log").read_text()


def test_validation_writes_scores_and_a_picture(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    with Monitor(tmp_path) as monitor:
        monitor.start(step=0, steps=10, images_per_step=1)
        monitor.advance(5)
        monitor.validated({"psnr": 30.5, "ssim": 0.9}, picture)
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line == {"step": 5, "kind": "validation", "psnr": 30.5, "ssim": 0.9}
    np.testing.assert_array_equal(read_rgb(tmp_path / "samples/result-and-truth-0000005.png"), picture)


def test_other_processes_write_nothing(tmp_path, capsys):
    with Monitor(tmp_path / "run", active=False) as monitor:
        monitor.start(step=0, steps=10, images_per_step=1)
        monitor.say("hello")
        monitor.report(METRICS)
        monitor.validated({"psnr": 30.5, "ssim": 0.9}, None)
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(sys.platform != "linux", reason="lists open files through /proc")
def test_a_work_folder_that_cannot_be_written_leaves_no_file_open(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match="cannot write to the work folder"):
        Monitor(tmp_path)
    open_files = {link.resolve() for link in pathlib.Path("/proc/self/fd").iterdir()}
    assert tmp_path / "train.log" not in open_files


def test_a_failing_upload_does_not_replace_the_error_of_the_run(bucket, monkeypatch):
    def upload(*_):
        raise UserError("the network is down")

    with pytest.raises(UserError, match="diverged"), Monitor(as_path(f"{bucket}/run")) as monitor:
        monitor.say("hello")
        monkeypatch.setattr("a2f_jax.staging.buckets.upload", upload)
        raise UserError("training diverged at step 7")
