"""Training in separate processes: killed at random moments, in a bucket, and two that train together."""

import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from a2f_jax.cli.main import main
from a2f_jax.cli.train import PREEMPTED
from a2f_jax.evaluation.benchmark import evaluate
from a2f_jax.files import as_path
from a2f_jax.images import write_rgb
from a2f_jax.model import load
from a2f_jax.weights.training_run import read_checkpoint

TINY = pathlib.Path(__file__).with_name("tiny.py")
A2F = str(pathlib.Path(sys.executable).parent / "a2f")


def command(data_dir, workdir, *overrides):
    return [A2F, "train", "--config", f"{TINY}:{data_dir}", "--workdir", str(workdir), *overrides]


def environment(compiled, devices):
    return {
        **os.environ,
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def weights(workdir):
    params, _ = read_checkpoint(workdir)
    return {name: np.asarray(value) for name, value in flatten(params)}


def flatten(tree, path=""):
    for key, value in tree.items():
        yield from flatten(value, f"{path}/{key}") if isinstance(value, dict) else [(f"{path}/{key}", value)]


def test_a_process_killed_at_random_moments_ends_with_the_same_bits(data_dir, compiled, tmp_path):
    # A checkpoint after every step, so that many kills hit while one is being written.
    overrides = ("--config.steps=14", "--config.checkpoint_every=1", "--config.validate_every=14")
    env = environment(compiled, devices=1)
    undisturbed = tmp_path / "undisturbed"
    start = time.monotonic()
    subprocess.run(command(data_dir, undisturbed, *overrides), env=env, check=True, capture_output=True)
    duration = time.monotonic() - start

    killed, kills, moments = tmp_path / "killed", 0, random.Random(0)
    while kills < 4:
        process = subprocess.Popen(command(data_dir, killed, *overrides), env=env, stderr=subprocess.PIPE, text=True)
        # Counted from the start of training, because kills before that prove nothing.
        for line in process.stderr:
            if re.match(r"(Starting|Resuming) at step", line):
                break
        time.sleep(moments.uniform(0, duration / 10))
        finished = process.poll() is not None
        process.kill()
        process.communicate()
        kills += 1
        if finished:
            break
    assert kills > 2, "the run ended before it could be killed: it needs more steps"
    done = subprocess.run(command(data_dir, killed, *overrides), env=env, check=True, capture_output=True, text=True)
    assert "damaged" not in done.stderr
    a, b = weights(undisturbed / "checkpoints/14"), weights(killed / "checkpoints/14")
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_ctrl_c_saves_and_exits_with_130(data_dir, compiled, tmp_path):
    process = subprocess.Popen(
        command(data_dir, tmp_path, "--config.steps=100000", "--config.validate_every=100000"),
        env=environment(compiled, devices=1),
        stderr=subprocess.PIPE,
        text=True,
        # Otherwise it would ignore Ctrl-C if the tests run in the background of a script.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509, no threads matter
    )
    for line in process.stderr:
        if line.startswith("step "):
            break
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=240)[1]
    assert process.returncode == 130, rest
    (step,) = re.findall(r"Stopped by a signal after step (\d+); the state is saved", rest)
    assert (tmp_path / "checkpoints" / step / "params").is_dir()


def test_a_whole_project_in_a_bucket_survives_a_kill(bucket, data_dir, compiled, tmp_path, capsys):
    def a2f(*words):
        assert main([*words]) == 0

    env, photos = environment(compiled, devices=1), tmp_path / "photos"
    rng = np.random.default_rng(0)
    for i in range(6):  # as in `data_dir`
        coarse = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
        write_rgb(photos / f"{i}.png", coarse.repeat(8, 0).repeat(8, 1))
    prepare = ("data", "prepare", "tiny", "--scale", "2", "--validation", "2", "--min-size", "1")
    a2f(*prepare, "--source", str(photos), "--data-dir", f"{bucket}/data")

    overrides = [
        f"--config.{x}" for x in ("steps=3", "checkpoint_every=1", "validate_every=3", "log_every=1", "ema_decay=0.0")
    ]
    local, run = tmp_path / "local", f"{bucket}/run"
    subprocess.run(command(data_dir, local, *overrides), env=env, check=True, capture_output=True)
    train = command(f"{bucket}/data", run, *overrides)
    process = subprocess.Popen(train, env=env, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("step 3/"):
            break
    process.kill()  # the checkpoint of step 1 is complete, and that of step 2 being written
    process.communicate()
    assert as_path(f"{run}/lock").exists()
    resumed = subprocess.run(train, env=env, check=True, capture_output=True, text=True).stderr
    assert re.search(r"Resuming at step [12] of 3", resumed)
    assert "waiting up to" not in resumed  # for the claim of the killed process
    assert "damaged" not in resumed
    assert not as_path(f"{run}/lock").exists()

    a, b = weights(local / "checkpoints/3"), weights(as_path(f"{run}/checkpoints/3"))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    metrics = [json.loads(line) for line in as_path(f"{run}/metrics.jsonl").read_text().splitlines()]
    assert {line["step"] for line in metrics if line["kind"] == "validation"} == {3}
    assert as_path(f"{run}/samples/result-and-truth-0000003.png").exists()
    assert "Done: 3 steps" in as_path(f"{run}/train.log").read_text()

    a2f("evaluate", "--weights", run, "--data", f"{bucket}/data", "--datasets", "tiny", "--output", f"{bucket}/results")
    (result,) = json.loads(as_path(f"{bucket}/results/results.json").read_text())
    assert result["datasets"]["tiny"]["n"] == 2
    a2f("convert", run, f"{bucket}/weights.safetensors")
    upscale = ("upscale", "--weights", f"{bucket}/weights.safetensors")
    a2f(*upscale, str(photos / "0.png"), "-o", f"{bucket}/small/0.png")
    capsys.readouterr()
    a2f(*upscale, f"{bucket}/small/", "-o", f"{bucket}/large/")
    assert capsys.readouterr().out == f"{bucket}/large\n"
    a2f("upscale", "--weights", str(local), str(photos / "0.png"), "-o", str(tmp_path / "small.png"))
    a2f("upscale", "--weights", str(local), str(tmp_path / "small.png"), "-o", str(tmp_path / "large.png"))
    assert as_path(f"{bucket}/large/0.png").read_bytes() == (tmp_path / "large.png").read_bytes()


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def start_together(data_dir, compiled, workdir, *overrides, each=((), ())):
    """Starts two processes with two devices each; `each` holds the overrides of only one of them."""
    together = ("--distributed", "--coordinator", f"localhost:{free_port()}", "--processes", "2", "--process-id")
    return [
        subprocess.Popen(
            [*command(data_dir, workdir, *overrides, *each[i]), *together, str(i)],
            env=environment(compiled / f"process{i}", devices=2),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]


def ends_of(processes, code=0):
    output = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [code, code], "\n\n".join(output)
    return output


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def one(data_dir, compiled, tmp_path_factory):
    """A run of one process with four devices."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    subprocess.run(command(data_dir, workdir), env=environment(compiled, devices=4), check=True, capture_output=True)
    return workdir


@pytest.mark.parametrize(("mode", "parts"), [("shard_map", 2), ("pmap", 1)])
def test_two_processes_train_save_and_resume_like_one(data_dir, compiled, tmp_path, one, mode, parts):
    two, mode = tmp_path / "two", f"--config.spmd={mode}"
    each = ((), ())
    if parts == 2:  # with a copy of the data for each machine, which may be in another place
        each = ((), (f"--config.data.dir={shutil.copytree(data_dir, tmp_path / 'copy')}",))
        ends_of(start_together(data_dir, compiled, two, mode, "--config.steps=4", each=each))
    output = ends_of(start_together(data_dir, compiled, two, mode, each=each))
    assert ("Resuming at step 4" if parts == 2 else "Starting at step 0") + " of 8 on 4 cpu" in output[0]
    assert "step" not in output[1]  # only the first process reports
    a, b = weights(one / "checkpoints/8"), weights(two / "checkpoints/8")
    for name in a:
        # The order of sums over devices differs; test_spmd.py explains the tolerance.
        np.testing.assert_allclose(a[name], b[name], atol=1e-4, err_msg=name)


def test_two_processes_stop_together_when_one_is_asked_to(data_dir, compiled, tmp_path):
    processes = start_together(
        data_dir, compiled, tmp_path, "--config.steps=100000", "--config.steps_per_dispatch=2", "--config.log_every=6"
    )
    for line in processes[0].stdout:
        if line.startswith("step 6/"):
            break
    processes[1].terminate()
    output = ends_of(processes, PREEMPTED)
    (step,) = re.findall(r"Stopped by a signal after step (\d+)", output[0])
    assert (tmp_path / "checkpoints" / step / "params").is_dir()


WITH_CALLBACK = """
import runpy, sys
import jax
import a2f_jax

program, tiny, data_dir, workdir, photos, coordinator, index = sys.argv
jax.distributed.initialize(coordinator, 2, int(index))
config, called = runpy.run_path(tiny)["get_config"](data_dir), []
config.validation.sets = (photos,)

def stop_at_step_6(step, metrics, state):
    called.append(float(abs(state.params["head"]["v"]).sum()) > 0 and step)
    return step == 6

# Only the first process has a callback, as in a program that logs there.
callbacks = [stop_at_step_6] if index == "0" else []
result = a2f_jax.train(config, workdir, callbacks=callbacks)
print(result.history[1]["validation/photos/psnr"])
print(called, result.finished, [row["step"] for row in result.history], result.model.metadata["step"])
"""


def test_two_processes_share_a_validation_set_and_stop_together_when_a_callback_of_the_first_one_asks_to(
    data_dir, compiled, tmp_path
):
    rng, photos = np.random.default_rng(0), tmp_path / "photos"
    for i in range(3):  # of which one process measures two
        write_rgb(photos / f"{i}.png", rng.integers(0, 256, (32, 40 + i, 3), dtype=np.uint8))
    address = f"localhost:{free_port()}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WITH_CALLBACK, TINY, data_dir, tmp_path / "run", photos, address, str(i)],
            env=environment(compiled / f"process{i}", devices=2),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    (first_psnr, first), (second_psnr, second) = (output.splitlines()[-2:] for output in ends_of(processes))
    assert first == "[2, 4, 6] False [2, 4, 6] 4"
    assert second == "[] False [2, 4, 6] 4"
    (expected,) = evaluate(load(tmp_path / "run/checkpoints/4"), [photos])
    # This process compiles with other optimizations, so that a pixel may be rounded differently.
    assert float(first_psnr) == float(second_psnr) == pytest.approx(expected["psnr"], rel=1e-6)


def failures_of(processes):
    output = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], "\n\n".join(output)
    return [next(line for line in text.splitlines() if line.startswith("a2f: error: ")) for text in output]


def test_two_processes_fail_together_when_the_first_one_fails(data_dir, compiled, tmp_path):
    (tmp_path / "train.log").mkdir()  # only the first process writes the log
    first, second = failures_of(start_together(data_dir, compiled, tmp_path))
    assert first == second
    assert "cannot write to the work folder" in first


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.data.dir=/missing", "is not prepared in /missing, which does not exist"),
        ("--config.loss=nosuch", "config.loss=nosuch is invalid"),
        ("--config=missing.py", "config file missing.py does not exist"),
    ],
)
def test_two_processes_fail_together_when_the_second_one_fails(data_dir, compiled, tmp_path, override, message):
    first, second = failures_of(start_together(data_dir, compiled, tmp_path / "run", each=[(), (override,)]))
    assert first == second
    assert message in first


IMPATIENT = """
import runpy
from a2f_jax.training import processes

processes._PATIENCE = 1.0
get_config = runpy.run_path({tiny!r})["get_config"]
"""


def test_two_processes_that_do_not_share_the_work_folder_are_told_so_before_they_train(data_dir, compiled, tmp_path):
    impatient = compiled / "impatient.py"
    impatient.write_text(IMPATIENT.format(tiny=str(TINY)))
    config = ("--config", f"{impatient}:{data_dir}")
    each = [(*config, "--workdir", str(tmp_path / name)) for name in ("one", "other")]  # the last option counts
    first, second = failures_of(start_together(data_dir, compiled, tmp_path, each=each))
    assert first == second
    assert f"process 1 does not see what process 0 writes to {tmp_path / 'other'}: use a folder" in first
    assert not list(tmp_path.iterdir())


def test_two_processes_with_different_settings_are_told_so_before_they_train(data_dir, compiled, tmp_path):
    each = [("--config.seed=3",), ("--config.seed=4", f"--config.data.dir={data_dir}")]  # folders may differ
    first, second = failures_of(start_together(data_dir, compiled, tmp_path / "run", each=each))
    assert first == second
    assert "process 1 has other settings than process 0: config.seed=4 instead of 3; start all with the same" in first
    assert not (tmp_path / "run").exists()
