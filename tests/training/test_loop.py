"""Complete training runs in this process."""

import itertools
import json
import logging
import os
import pathlib
import re
import runpy
import shlex
import shutil
import signal
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict, FrozenConfigDict

import a2f_jax
from a2f_jax import buckets
from a2f_jax.cli.main import parser
from a2f_jax.configs import peers
from a2f_jax.errors import UserError
from a2f_jax.files import as_path, locked
from a2f_jax.images import write_rgb
from a2f_jax.models.a2f import A2F
from a2f_jax.models.layers import pixel_shuffle
from a2f_jax.models.registry import PEERS, Peer
from a2f_jax.training import loop
from a2f_jax.training.history import read_history
from a2f_jax.training.loop import train
from a2f_jax.training.warm_start import copy_matching
from a2f_jax.weights.training_run import read_checkpoint

TINY = pathlib.Path(__file__).with_name("tiny.py")


def steps_in(workdir):
    return sorted(int(f.name) for f in (workdir / "checkpoints").iterdir() if f.name.isdigit())


def metrics_of(workdir, kind):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines if line["kind"] == kind}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data_dir):
    """An uninterrupted run of eight steps."""
    workdir = tmp_path_factory.mktemp("whole")
    train(runpy.run_path(str(TINY))["get_config"](str(data_dir)), workdir)
    return workdir


def assert_same_weights(a, b):
    jax.tree.map(np.testing.assert_array_equal, read_checkpoint(a)[0], read_checkpoint(b)[0])


def test_a_run_leaves_checkpoints_figures_pictures_and_a_log(whole):
    assert steps_in(whole) == [4, 8]
    train_figures = metrics_of(whole, "train")
    assert sorted(train_figures) == [2, 4, 6, 8]
    assert {"loss", "grad_norm", "learning_rate", "images_per_second", "waiting_percent"} < set(train_figures[2])
    assert set(metrics_of(whole, "validation")[8]) == {"step", "kind", "psnr", "ssim"}
    assert "block_01/lambda_aux" in metrics_of(whole, "lambda")[8]
    assert (whole / "samples" / "result-and-truth-0000008.png").is_file()
    log = (whole / "train.log").read_text()
    assert "block_00/expand/v" in log
    assert "step 8/8" in log


def test_a_checkpoint_loads_without_warnings(whole, caplog):
    a2f_jax.load(whole)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_best_checkpoint_loads_as_a_model(whole):
    model = a2f_jax.load(whole)
    scores = metrics_of(whole, "validation")
    best = max(scores, key=lambda step: scores[step]["psnr"])
    assert model.metadata["step"] == str(best)
    assert model.metadata["validation_psnr"] == f"{scores[best]['psnr']:.3f}"
    assert model.upscale(np.zeros((8, 9, 3), np.uint8)).shape == (16, 18, 3)


def test_training_lowers_the_loss(config, tmp_path):
    config.steps, config.optimizer.learning_rate = 40, 3e-3
    config.log_every, config.validate_every = 10, 40
    train(config, tmp_path)
    losses = [line["loss"] for line in metrics_of(tmp_path, "train").values()]
    assert losses[-1] < 0.8 * losses[0]


def assert_same_checkpoints(a, b, step):
    for item in ("params", "ema", "optimizer"):
        jax.tree.map(np.testing.assert_array_equal, *(restored(workdir, str(step), item) for workdir in (a, b)))


def without_speed(history):
    speed = ("train/images_per_second", "train/waiting_percent")
    return [{name: value for name, value in row.items() if name not in speed} for row in history]


def test_a_run_in_two_parts_ends_with_the_same_bits_and_the_same_history(config, whole, tmp_path):
    for config.steps in (4, 8):
        result = train(config, tmp_path)
        assert_same_checkpoints(whole, tmp_path, config.steps)
    assert without_speed(result.history) == without_speed(read_history(whole))


def test_a_run_returns_its_best_weights_and_its_history(config, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = train(config, "a2f-sd-x4")  # a folder, although shipped weights have this name
    assert result.finished
    assert [row["step"] for row in result.history] == [2, 4, 6, 8]
    for row in result.history:
        assert {"train/loss", "train/grad_norm", "train/learning_rate", "train/images_per_second"} < set(row)
        assert ("validation/psnr" in row) == (row["step"] in (4, 8))
    best = max(result.history, key=lambda row: row.get("validation/psnr", 0))
    assert result.model.metadata["step"] == str(best["step"])
    params = read_checkpoint(tmp_path / "a2f-sd-x4/checkpoints" / str(best["step"]))[0]
    jax.tree.map(np.testing.assert_array_equal, result.model.params, params)
    again = train(config, tmp_path / "a2f-sd-x4")  # there is nothing left to do
    assert (again.finished, again.history) == (True, result.history)


@pytest.mark.parametrize("mode", ["shard_map", "pmap"])
def test_callbacks_see_the_step_the_metrics_and_a_state_to_keep(config, tmp_path, mode):
    config.spmd, config.steps, config.model.blocks = mode, 3, 1
    config.log_every, config.validate_every, config.checkpoint_every, config.keep_checkpoints = 2, 3, 1, 3
    calls, steps = [], []
    callbacks = [lambda *call: calls.append(call), lambda step, *_: steps.append(step)]
    result = train(config, tmp_path, callbacks=(call for call in callbacks))  # any iterable
    assert steps == [step for step, *_ in calls] == [2, 3]
    assert [{"step": step, **metrics} for step, metrics, _ in calls] == result.history
    assert "validation/psnr" not in calls[0][1]
    assert {"train/loss", "validation/psnr", "validation/ssim"} < set(calls[1][1])
    for step, _, state in calls:  # that of step 2 is not the memory of step 3
        assert (int(state.step), state.params["head"]["v"].shape) == (step, (3, 3, 3, 8))
        for item in ("params", "ema", "opt_state"):
            saved = restored(tmp_path, str(step), item.replace("opt_state", "optimizer"))
            arrays = [jax.tree.leaves(tree) for tree in (getattr(state, item), saved)]
            for a, b in zip(*arrays, strict=True):
                np.testing.assert_array_equal(a, b)
        jax.tree.map(np.testing.assert_array_equal, state.weights, state.ema)


def test_a_callback_stops_a_run_which_can_be_resumed(config, whole, tmp_path, capfd):
    stopped = train(config, tmp_path, callbacks=[lambda step, metrics, state: np.bool_(step == 6)])
    assert (stopped.finished, stopped.history[-1]["step"]) == (False, 6)
    assert steps_in(tmp_path) == [4, 6]
    assert stopped.model.metadata["step"] == "4"  # the last one that was validated
    assert "Stopped by a callback after step 6; the state is saved" in capfd.readouterr().err
    result = train(config, tmp_path, callbacks=[lambda *_: None])
    assert result.finished
    assert without_speed(result.history) == without_speed(read_history(whole))
    assert_same_checkpoints(whole, tmp_path, 8)


def test_an_error_in_a_callback_ends_the_run(config, tmp_path):
    def fail(step, metrics, state):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(config, tmp_path, callbacks=[fail])
    config.steps = 2
    assert train(config, tmp_path).finished


def test_a_callback_that_returns_an_array_is_told_what_it_may_return(config, tmp_path):
    config.steps, config.log_every = 2, 1

    def weights(step, metrics, state):
        return state.params["head"]["v"]

    with pytest.raises(TypeError, match=r"the callback weights returned a value of type ndarray.*True to stop the run"):
        train(config, tmp_path, callbacks=[weights])


def test_a_callback_that_would_have_to_be_awaited_is_told_what_it_may_return(config, tmp_path):
    config.steps, config.log_every = 2, 1

    async def upload(step, metrics, state):
        pass

    with pytest.raises(TypeError, match=r"the callback upload returned a value of type coroutine.*or nothing"):
        train(config, tmp_path, callbacks=[upload])


@pytest.mark.parametrize("mode", ["shard_map", "pmap"])
def test_a_mesh_and_a_transfer_guard_of_the_caller_do_not_change_the_run(config, tmp_path, mode):
    config.spmd, config.steps, config.model.blocks = mode, 2, 1
    outside = train(config, tmp_path / "outside").model
    mesh = jax.make_mesh((2, 4), ("batch", "model"))
    with jax.set_mesh(mesh), jax.transfer_guard("disallow"):
        inside = train(config, tmp_path / "inside").model
        assert jax.sharding.get_abstract_mesh() == mesh.abstract_mesh
    jax.tree.map(np.testing.assert_array_equal, inside.params, outside.params)


class Gray(nn.Module):
    """A network with the result of a network for luma, which is none."""

    scale: int = 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, lr):
        return pixel_shuffle(nn.Conv(self.scale**2, (3, 3))(lr.astype(self.dtype)), self.scale)


class Normalized(Gray):
    """A network whose statistics would be lost."""

    @nn.compact
    def __call__(self, lr):
        h = nn.BatchNorm(use_running_average=False)(lr.astype(self.dtype))
        return pixel_shuffle(nn.Conv(3 * self.scale**2, (3, 3))(h), self.scale)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            Gray,
            r"Gray has scale=2, so for \[1, 8, 8, 3\] it must return .*, but it returns float32 \[1, 16, 16, 1\]",
        ),
        (Normalized, "Normalized has the variables batch_stats, but only its `params` are trained and saved"),
    ],
)
def test_a_network_that_does_not_return_what_it_has_to_is_refused_before_any_work(
    data_dir, tmp_path, monkeypatch, network, message
):
    monkeypatch.setitem(PEERS, "mine", Peer("Mine", network, scales=(2,)))
    config = peers.get_config("mine_x2")
    config.batch_size = 8
    config.data.name, config.data.dir, config.data.patch_size = "tiny", str(data_dir), 8
    with pytest.raises(TypeError, match=message):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_settings_may_be_numpy_scalars(config, tmp_path):
    settings = config.to_dict()
    settings |= {"seed": np.uint32(2**31), "steps": np.uint8(2), "steps_per_dispatch": np.int8(2)}
    settings |= {"checkpoint_every": np.int16(2), "batch_size": np.int64(8)}
    settings["mine"] = {"a.b": object()}  # an entry that is no setting may be anything
    settings["model"] |= {"features": np.uint8(8), "scale": np.int32(2), "auxiliary": np.bool_(True)}
    assert train(ConfigDict(settings, convert_dict=False), tmp_path).finished
    settings["seed"] = 2**31 + 1
    with pytest.raises(UserError, match="seed: 2147483648 → 2147483649"):
        train(ConfigDict(settings, convert_dict=False), tmp_path)


def halved(sr, hr):
    return jnp.mean(jnp.abs(sr - hr)) / 2


def test_a_run_minimizes_the_loss_that_it_is_given(config, whole, tmp_path):
    config.steps = 2
    (row,) = train(FrozenConfigDict(config), tmp_path, loss=halved).history
    (first, *_) = read_history(whole)
    # Adam's steps do not depend on the size of the gradient, up to the rounding of its epsilon.
    assert row["train/loss"] == pytest.approx(first["train/loss"] / 2, rel=1e-4)
    assert row["train/grad_norm"] == pytest.approx(first["train/grad_norm"] / 2, rel=1e-3)
    config.steps = 4
    with pytest.raises(UserError, match="other settings \\(loss: 'halved' → 'l1'\\)"):
        train(config, tmp_path)
    assert train(config, tmp_path, loss=halved).finished


def test_a_refused_run_in_a_bucket_leaves_nothing(config, bucket):
    config.init = "nowhere"
    with pytest.raises(UserError, match="no weights at nowhere"):
        train(config, f"{bucket}/run")
    assert not buckets.list_files(as_path(f"{bucket}/run"))


def test_a_resumed_run_that_is_refused_keeps_all_its_files(config, whole):
    before = sorted(whole.rglob("*"))
    config.seed = 1
    with pytest.raises(UserError, match="seed: 0 → 1"):
        train(config, whole)
    assert sorted(whole.rglob("*")) == before


def test_the_command_line_does_not_load_the_result(config, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(loop, "load", lambda *_: pytest.fail("loaded"))
    config.steps = 1
    assert loop.run_training(config, tmp_path)
    (done,) = (line for line in capfd.readouterr().err.splitlines() if line.startswith("Done: 1 step. To measure"))
    command = shlex.split(done.partition("checkpoint: ")[2])
    args = parser().parse_args(command[1:])
    assert (args.weights, args.datasets, args.data) == ([str(tmp_path)], [config.data.name], config.data.dir)


def test_a_run_minimizes_the_loss_that_its_config_names(config, tmp_path):
    config.steps, config.loss, config.model.blocks = 2, "l2", 1
    (named,) = train(config, tmp_path / "named").history
    config.loss = "l1"
    (given,) = train(config, tmp_path / "given", loss=lambda sr, hr: jnp.mean((sr - hr) ** 2)).history
    assert named["train/loss"] == given["train/loss"]


def test_a_loss_that_is_not_a_scalar_is_refused_before_any_work(config, tmp_path):
    with pytest.raises(TypeError, match="a loss must return a floating-point scalar"):
        train(config, tmp_path / "run", loss=lambda sr, hr: sr - hr)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("callbacks", [print, [3], "wandb"])
def test_callbacks_that_cannot_be_called_are_refused_before_any_work(config, tmp_path, callbacks):
    with pytest.raises(TypeError, match="callbacks must be a sequence of functions"):
        train(config, tmp_path / "run", callbacks=callbacks)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("lost", ["_METADATA", "d"])
def test_a_checkpoint_that_lacks_files_is_named_in_one_line(whole, tmp_path, lost):
    checkpoint = shutil.copytree(whole / "checkpoints/8", tmp_path / "8")
    path = checkpoint / "ema" / lost
    path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(UserError, match=r"the checkpoint .*8 is damaged \(.{1,150}\): pass an earlier one$"):
        a2f_jax.load(checkpoint)


def test_a_run_with_muon_in_two_parts_ends_with_the_same_bits(config, tmp_path):
    config.optimizer.name, config.optimizer.learning_rate, config.model.blocks, config.steps = "muon", 1e-2, 1, 4
    train(config, tmp_path / "whole")
    for config.steps in (2, 4):
        train(config, tmp_path / "parts")
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "parts", 4)


def bits(tree):
    return {name: np.asarray(x).tobytes() for name, x in flax.traverse_util.flatten_dict(tree, sep="/").items()}


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_frozen_parameters_keep_their_bits_also_in_the_average_and_after_a_resume(config, whole, tmp_path, name, capfd):
    config.optimizer.name, config.optimizer.learning_rate = name, 1e-2
    config.optimizer.freeze, config.init, config.steps = "block_00/(expand|attention)|bias|lambda", str(whole), 2
    train(config, tmp_path)
    before = bits(read_checkpoint(whole)[0])
    size = sum(len(value) for key, value in before.items() if re.search(config.optimizer.freeze, key)) // 4
    assert f"parameters, of which {size:,} are frozen" in capfd.readouterr().err
    config.steps = 4
    train(config, tmp_path)
    for item in ("params", "ema"):
        after = bits(restored(tmp_path, "4", item))
        kept = {key for key in before if re.search(config.optimizer.freeze, key)}
        assert {key for key in before if after[key] == before[key]} == kept


def restored(workdir, step, item):
    import orbax.checkpoint as ocp

    tree = ocp.StandardCheckpointer().restore(workdir / "checkpoints" / step / item)
    return tree if isinstance(tree, dict) else {str(i): part for i, part in enumerate(tree)}


def test_several_updates_per_dispatch_see_the_same_patches(config, whole, tmp_path):
    config.steps_per_dispatch = 3  # does not divide the steps at which something is due
    train(config, tmp_path)
    one, many = metrics_of(whole, "train"), metrics_of(tmp_path, "train")
    assert list(one) == list(many)
    # A compiled loop may round sums differently.
    np.testing.assert_allclose([x["loss"] for x in one.values()], [x["loss"] for x in many.values()], rtol=1e-4)


@pytest.mark.parametrize("mode", ["shard_map", "pmap"])
def test_devices_that_hold_the_images_train_as_from_the_host(config, whole, tmp_path, mode):
    config.data.placement, config.spmd = "device", mode
    train(config, tmp_path)
    want, have = metrics_of(whole, "train"), metrics_of(tmp_path, "train")
    # The patches are identical (tests/data), but the surrounding programs may round differently.
    np.testing.assert_allclose([x["loss"] for x in have.values()], [x["loss"] for x in want.values()], rtol=1e-4)


@pytest.fixture
def at_step_3(monkeypatch):
    """Returns `at_step_3(number)`, after which a run gets this signal in its third step."""

    def send(number):
        steps, requested = itertools.count(1), loop.Preemption.requested

        def send_and_ask(self):
            if next(steps) == 3:
                os.kill(os.getpid(), number)
            return requested(self)

        monkeypatch.setattr(loop.Preemption, "requested", send_and_ask)

    return send


def test_sigterm_saves_and_returns(config, whole, tmp_path, monkeypatch, at_step_3, capfd):
    at_step_3(signal.SIGTERM)
    assert not train(config, tmp_path).finished
    assert steps_in(tmp_path) == [3]
    assert "Stopped by a signal after step 3" in capfd.readouterr().err
    monkeypatch.undo()
    assert train(config, tmp_path).finished
    assert_same_weights(tmp_path / "checkpoints/8", whole / "checkpoints/8")


def test_ctrl_c_saves_and_raises_keyboard_interrupt(config, tmp_path, at_step_3, capfd):
    at_step_3(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path)
    assert steps_in(tmp_path) == [3]
    assert "press Ctrl-C again to stop at once" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_failing_validation_loses_no_steps_and_is_repeated_when_the_run_resumes(config, whole, tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(loop, "validate", fail)
    with pytest.raises(MemoryError):
        train(config, tmp_path)
    assert steps_in(tmp_path) == [4]
    monkeypatch.undo()
    calls = []
    result = train(config, tmp_path, callbacks=[lambda step, metrics, state: calls.append((step, {*metrics}))])
    assert [step for step, _ in calls] == [4, 6, 8]
    assert calls[0][1] == {"validation/psnr", "validation/ssim"}
    assert without_speed(result.history) == without_speed(read_history(whole))
    assert metrics_of(tmp_path, "validation") == metrics_of(whole, "validation")
    assert_same_weights(tmp_path, whole)  # of the best checkpoints


def test_paths_may_start_with_the_home_folder(config, data_dir, whole, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").symlink_to(data_dir)
    (tmp_path / "whole").symlink_to(whole)
    config.steps, config.data.dir, config.init = 1, "~/data", "~/whole"
    train(config, "~/run")
    assert steps_in(tmp_path / "run") == [1]
    assert a2f_jax.load(tmp_path / "run").metadata["init"] == "whole"  # without the folders of whoever trained it


def test_entries_of_a_config_that_are_not_settings_do_not_block_resuming(config, whole, capfd):
    config.mine = 5
    train(config, whole)
    shown = capfd.readouterr().err
    assert "Ignoring entries of the config that are not settings: mine" in shown
    assert "has reached step 8" in shown


def test_other_settings_are_refused_before_the_dataset_is_decoded(config, whole, monkeypatch):
    monkeypatch.setattr(loop, "open_training_data", lambda *_: pytest.fail("opened"))
    config.init = "nowhere"
    with pytest.raises(UserError, match="cannot change when it resumes \\(init: '' → 'nowhere'"):
        train(config, whole)


@pytest.fixture
def set5(tmp_path):
    """A folder with a benchmark set of two images of different sizes."""
    rng = np.random.default_rng(5)
    for name, height, width in (("baby", 40, 44), ("bird", 300, 36)):  # more than the crop of validation
        coarse = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
        write_rgb(tmp_path / "benchmark/Set5/HR" / f"{name}.png", coarse.repeat(4, 0).repeat(4, 1))
    return tmp_path / "benchmark"


def test_benchmark_sets_are_measured_whole_and_do_not_choose_the_best_checkpoint(config, set5, tmp_path, capfd):
    config.validation.sets, config.validation.dir = ("set5", f"{set5}/Set5/"), str(set5)
    config.steps = config.validate_every = 2
    result = train(config, tmp_path / "run")
    (row,) = result.history
    (expected,) = a2f_jax.evaluate(result.model, ["set5"], data_dir=set5)
    held_out = json.loads((tmp_path / "run/checkpoints/2/scores.json").read_text())
    for metric in ("psnr", "ssim"):
        assert row[f"validation/set5/{metric}"] == row[f"validation/Set5/{metric}"] == expected[metric]
        assert row[f"validation/{metric}"] == held_out[metric] != expected[metric]
    assert held_out.keys() == {"psnr", "ssim", "validation", "images"}
    assert f"step 2: set5 PSNR {expected['psnr']:.3f} dB, SSIM {expected['ssim']:.4f}" in capfd.readouterr().err


def test_benchmark_sets_that_cannot_be_measured_are_refused_before_the_dataset_is_decoded(
    config, set5, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "open_training_data", lambda *_: pytest.fail("opened"))
    config.validation.dir = str(set5)
    write_rgb(tmp_path / "small/dot.png", np.zeros((14, 20, 3), np.uint8))
    write_rgb(tmp_path / "Set5/another.png", np.zeros((40, 44, 3), np.uint8))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/torn.png").write_bytes((set5 / "Set5/HR/baby.png").read_bytes()[:100])
    for sets, message in [
        (("set14",), "does not contain set14 ×2"),
        ((f"{tmp_path}/none/",), "none is not a folder"),
        ((f"{tmp_path}/small/",), "small/, image dot.png: the image of 20×14 is too small"),
        ((f"{tmp_path}/broken/",), "torn.png"),
        (("set5", "SET5"), "config.validation.sets names set5 twice: leave out one of them"),
        ((f"{set5}/Set5/", f"{set5}/Set5"), "Set5/ twice: leave out one of them"),
        ((f"{set5}/Set5/", f"{tmp_path}/Set5/"), "contains two folders Set5: rename one of them"),
    ]:
        config.validation.sets = sets
        with pytest.raises(UserError, match=message):
            train(config, tmp_path / "run")
    config.validation.sets, config.validation.dir = ("set5",), ""
    monkeypatch.setenv("A2F_DATA_DIR", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"pass the folder that contains Set5/, or .* \(config.validation.dir\)$"):
        train(config, tmp_path / "run")


def test_a_dataset_without_validation_images_is_refused_before_it_is_decoded(config, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(2):
        write_rgb(photos / f"{i}.png", np.random.default_rng(i).integers(0, 256, (128, 128, 3), dtype=np.uint8))
    a2f_jax.prepare("unheld", scale=2, data_dir=tmp_path / "data", source=photos, validation=0)
    config.data.name, config.data.dir = "unheld", str(tmp_path / "data")
    with pytest.raises(UserError, match=r"no (split 'validation'|validation images)"):
        train(config, tmp_path / "run")
    assert not list((tmp_path / "data").rglob("decoded"))


def test_divergence_stops_before_anything_broken_is_saved(config, tmp_path):
    config.optimizer.learning_rate = 1e30
    config.log_every, config.checkpoint_every, config.validate_every = 100, 1, 100
    with pytest.raises(UserError, match=r"diverged at step 0: .*\(learning rate 1e\+30, batch 0 of seed 0: .*\.png"):
        train(config, tmp_path)
    assert steps_in(tmp_path) == []  # the gradient was finite, but the updated weights were not


def test_a_damaged_newest_checkpoint_is_moved_aside(config, whole, tmp_path, capfd):
    train(config, tmp_path)
    for file in (tmp_path / "checkpoints/8/params").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    capfd.readouterr()
    train(config, tmp_path)
    shown = capfd.readouterr().err
    assert "checkpoint of step 8 is damaged and was moved to" in shown
    assert "Resuming at step 4" in shown
    assert_same_weights(tmp_path / "checkpoints/8", whole / "checkpoints/8")


def test_changed_settings_are_named_before_work_is_lost(config, tmp_path):
    config.steps = 4
    train(config, tmp_path)
    config.optimizer.learning_rate = 5e-4
    with pytest.raises(UserError, match=r"optimizer.learning_rate: 0.001 → 0.0005"):
        train(config, tmp_path)
    config.steps = 6
    train(config, tmp_path, accept_changes=True)
    assert metrics_of(tmp_path, "train")[6]["learning_rate"] == pytest.approx(5e-4)


def test_clipping_and_averaging_can_be_switched_on_when_a_run_resumes(config, tmp_path, capfd):
    config.steps, config.ema_decay = 4, 0.0
    train(config, tmp_path)
    config.steps, config.ema_decay, config.optimizer.clip_norm = 6, 0.9, 10.0
    train(config, tmp_path, accept_changes=True)
    assert "Resuming at step 4" in capfd.readouterr().err
    assert steps_in(tmp_path) == [4, 6]
    assert (tmp_path / "checkpoints/6/ema").is_dir()
    # Another network is not damage either, so nothing is moved aside.
    config.steps, config.model.blocks = 8, 3
    with pytest.raises(UserError, match=r"\(model.blocks: 2 → 3\).*config.init="):
        train(config, tmp_path, accept_changes=True)
    assert steps_in(tmp_path) == [4, 6]


def test_steps_may_change_except_with_a_cosine_schedule(config, tmp_path, capfd):
    config.steps, config.optimizer.schedule = 2, "cosine"
    train(config, tmp_path)
    train(config, tmp_path)
    assert "has reached step 2" in capfd.readouterr().err
    config.steps = 4
    with pytest.raises(UserError, match="steps: 2 → 4"):
        train(config, tmp_path)


def test_only_one_run_at_a_time_uses_a_work_folder_in_a_bucket(config, bucket, monkeypatch):
    monkeypatch.setattr(buckets, "_REFRESH", 0.1)
    with buckets.Claim(as_path(f"{bucket}/run/lock")) as claim:
        with pytest.raises(UserError, match=f"another run is using {bucket}/run: wait"):
            train(config, f"{bucket}/run")
        claim.check()


def test_a_run_whose_work_folder_was_taken_over_saves_nothing(config, bucket, monkeypatch):
    config.steps = 1
    monkeypatch.setattr(buckets.Claim, "_is_mine", lambda self: False)
    with pytest.raises(UserError, match=f"another run has taken over {bucket}/run: this one stops"):
        train(config, f"{bucket}/run")
    assert not as_path(f"{bucket}/run/checkpoints").exists()


def test_only_one_run_at_a_time_uses_a_work_folder(config, tmp_path):
    with locked(tmp_path / "lock"), pytest.raises(UserError, match="another run is using"):
        train(config, tmp_path)


def test_profile_writes_a_trace(config, tmp_path):
    config.steps = 2
    train(config, tmp_path, profile=1)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_debugging_checks_do_not_change_the_run(config, whole, tmp_path):
    config.checks, config.steps = True, 2
    train(config, tmp_path)
    loss = metrics_of(tmp_path, "train")[2]["loss"]
    assert loss == pytest.approx(metrics_of(whole, "train")[2]["loss"], rel=1e-6)


def test_debugging_checks_name_the_operation_and_the_step_of_a_nan(config, tmp_path):
    config.checks, config.optimizer.learning_rate, config.log_every = True, 1e38, 100
    config.steps_per_dispatch = 4
    with pytest.raises(UserError, match=r"at step 1: \w+ in .*, forward pass$"):
        train(config, tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optimizer.b1", 1.0, "config.optimizer.b1=1.0 is invalid"),  # all others: test_settings.py
        ("batch_size", 12, "cannot be split evenly among 8 devices"),
        ("data.patch_size", 100, "patch_size=100 is "),
        ("data.name", "nothing", "a2f data prepare nothing"),
        ("init", "nowhere.safetensors", "no weights at nowhere.safetensors"),
    ],
)
def test_impossible_settings_are_refused_with_a_remedy(config, tmp_path, key, value, message):
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        train(config, tmp_path / "runs/new")
    assert not list(tmp_path.iterdir())
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=message):
        train(config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_unwritable_work_folder_is_named(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to the work folder"):
        train(config, tmp_path / "file" / "run")


def test_parameters_are_copied_where_names_and_shapes_match(random_params):
    x2, x4 = (random_params(A2F(scale=s, features=8, blocks=2), seed=s) for s in (2, 4))
    merged, left = copy_matching(x4, x2)
    assert sorted(left) == sorted(f"{part}.{leaf}" for part in ("tail", "skip") for leaf in ("v", "g", "bias"))
    np.testing.assert_array_equal(merged["head"]["v"], x2["head"]["v"])
    np.testing.assert_array_equal(merged["tail"]["v"], x4["tail"]["v"])


def test_a_run_can_start_from_weights(config, whole, tmp_path, capfd):
    config.init, config.steps, config.optimizer.learning_rate = str(whole), 1, 0.0
    config.ema_decay = 0.0
    train(config, tmp_path)
    assert "Starting from" in capfd.readouterr().err
    assert_same_weights(tmp_path, whole)


@pytest.mark.parametrize("config", ["tiny.py", None, {}])
def test_a_config_of_another_type_is_refused(config, tmp_path):
    with pytest.raises(TypeError, match=r"config must be an ml_collections\.ConfigDict, not "):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
