"""The history of a run, read from its `metrics.jsonl`."""

import json

from a2f_jax.files import as_path
from a2f_jax.training.history import read_history
from a2f_jax.training.monitor import Monitor

METRICS = {"loss": 7.25, "grad_norm": 1.0, "learning_rate": 1e-3}
SCORES = {"psnr": 30.0, "ssim": 0.9}


def write(workdir, *lines):
    (workdir / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))


def line(step, kind, **metrics):
    return json.dumps({"step": step, "kind": kind, **metrics})


def test_the_metrics_of_a_step_are_one_row(tmp_path):
    write(
        tmp_path,
        line(10, "train", loss=5.0),
        line(20, "train", loss=4.0),
        line(20, "validation", psnr=30.0),
        line(20, "lambda", **{"block_00/lambda_x": 1.0}),
    )
    assert read_history(tmp_path) == [
        {"step": 10, "train/loss": 5.0},
        {"step": 20, "train/loss": 4.0, "validation/psnr": 30.0},
    ]


def test_a_work_folder_without_metrics_has_no_history(tmp_path):
    assert read_history(tmp_path) == []


def test_the_work_folder_may_be_in_a_bucket(bucket):
    folder = as_path(f"{bucket}/run")
    assert read_history(folder) == []
    write(folder, line(10, "train", loss=5.0))
    assert read_history(folder) == [{"step": 10, "train/loss": 5.0}]


def test_what_a_kill_has_cut_off_and_what_is_not_a_line_of_metrics_is_left_out(tmp_path):
    write(tmp_path, line(10, "train", loss=5.0), '{"step": 20, "ki', "[1]", '{"step": "x", "kind": "train"}', "")
    assert read_history(tmp_path) == [{"step": 10, "train/loss": 5.0}]


def log(workdir, first, steps, loss):
    """Logs every given step, as a run that starts at step `first` does."""
    with Monitor(workdir) as monitor:
        monitor.start(first, 100, images_per_step=1)
        for step in steps:
            monitor.advance(step)
            monitor.report({**METRICS, "loss": loss})


def losses(workdir):
    return {row["step"]: row["train/loss"] for row in read_history(workdir)}


def test_steps_beyond_the_checkpoint_that_a_run_resumes_from_do_not_count(tmp_path):
    log(tmp_path, 0, [10, 20, 30, 40], loss=5.0)
    log(tmp_path, 20, [], loss=4.0)  # killed before it logged anything
    assert losses(tmp_path) == {10: 5.0, 20: 5.0}
    log(tmp_path, 20, [35], loss=4.0)  # such as with another `log_every`
    assert losses(tmp_path) == {10: 5.0, 20: 5.0, 35: 4.0}
    log(tmp_path, 0, [15], loss=3.0)  # such as without its damaged checkpoints
    assert losses(tmp_path) == {15: 3.0}


def test_a_validation_that_is_repeated_counts_once(tmp_path):
    for psnr in (30.0, 31.0):
        with Monitor(tmp_path) as monitor:
            monitor.start(5, 10, images_per_step=1)
            monitor.validated({**SCORES, "psnr": psnr}, None)
    assert read_history(tmp_path) == [{"step": 5, "validation/psnr": 31.0, "validation/ssim": 0.9}]
