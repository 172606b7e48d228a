"""The training loop."""

import contextlib
import os
import pathlib
import shlex
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import parameter_overview
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from a2f_jax import __version__, buckets
from a2f_jax.errors import UserError, count_of
from a2f_jax.files import as_path, exists, locked, resolved
from a2f_jax.model import Model, Network, load
from a2f_jax.models.a2f import A2F, Params
from a2f_jax.models.color import LumaNetwork
from a2f_jax.training.checkpoints import Checkpoints
from a2f_jax.training.debugging import checked_step, explain_divergence, tracing
from a2f_jax.training.failures import explaining_failures
from a2f_jax.training.history import FILE, read_history
from a2f_jax.training.inputs import degrading, dispatch_inputs, dispatch_sizes, open_training_data, resident_images
from a2f_jax.training.losses import LOSSES, Loss, check_loss, name_of_loss
from a2f_jax.training.monitor import Monitor
from a2f_jax.training.optimizer import frozen_parameters, learning_rate, make_optimizer
from a2f_jax.training.preemption import Preemption
from a2f_jax.training.processes import check_same, check_shared, failing_together
from a2f_jax.training.settings import (
    FOLDERS_OF_DATA,
    check,
    degradation_of,
    flat,
    make_network,
    settings_of,
    stored,
    unknown_entries,
)
from a2f_jax.training.spmd import parallelize
from a2f_jax.training.state import TrainState, init_state
from a2f_jax.training.step import check_network, make_train_step
from a2f_jax.training.step_metrics import StepMetrics
from a2f_jax.training.validation import WholeImages, digest_of, open_whole_images, validate
from a2f_jax.training.warm_start import initialize_from
from a2f_jax.weights.training_run import FOLDER

Callback = Callable[[int, dict[str, float], TrainState], object]
"""Called with the step, the metrics and the state of a run; it stops the run by returning something true."""

_NO_MESH = jax.sharding.Mesh(np.empty((), object), ())


class TrainResult(NamedTuple):
    """The result of a training run, including its earlier parts if it was resumed.

    Attributes:
      model: the best weights by validation PSNR, or the latest if none have been validated; the averaged ones if the
        run averages its weights. Its metadata include the `"step"` and the `"validation_psnr"`.
      history: a dictionary for each step at which metrics were logged, in ascending order: `"step"`, and the metrics by
        name, such as `"train/loss"` and `"validation/psnr"`. `pandas.DataFrame(history)` makes a table of it.
      finished: whether the run has reached its last step. It has not if a signal or a callback stopped it; then its
        state is saved.
    """

    model: Model
    history: list[dict[str, Any]]
    finished: bool


def train(
    config: ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    loss: Loss | None = None,
    callbacks: Sequence[Callback] = (),
    accept_changes: bool = False,
    profile: int | None = None,
) -> TrainResult:
    """Trains a network. If the work folder contains checkpoints, resumes from the newest one.

    SIGTERM, SIGHUP, and Ctrl-C save a checkpoint after the current step and stop the run. A second Ctrl-C stops it at
    once.

    Args:
      config: the settings, with the structure of `configs/a2f.py`.
      workdir: the folder for checkpoints, logs and sample images; created if it does not exist. It may be in a bucket
        (`gs://...`).
      loss: the loss to minimize, a function of SR and HR, in place of the one that `config.loss` names. Both are
        float32 `[N, H, W, 3]` on 0..255, the result is a scalar, and a mean over the N images, because it is averaged
        over devices. It is traced by JAX. For networks that upscale luma only, the images are `[N, H, W, 1]`, Y in
        16..235.
      callbacks: functions `callback(step, metrics, state)`, which are called whenever metrics have been logged, that is
        every `config.log_every` and every `config.validate_every` steps, in the first process. `metrics` is a
        dictionary of numbers, such as `"train/loss"` and `"validation/psnr"`, and `state` the state after the step, of
        which `state.weights` are the weights that were validated, as NumPy arrays that the callback may keep. If a
        callback returns something true, the state is saved and the run stops. An exception ends it without saving.
      accept_changes: whether to resume a run whose settings have changed in a way that affects its result.
      profile: the number of a step to profile. The trace of its dispatch is written to `workdir/profile`, for
        TensorBoard or Perfetto.

    Returns:
      The best weights, the history, and whether the run is finished.

    Raises:
      KeyboardInterrupt: Ctrl-C was pressed; the state is saved.
      TypeError: `config` is not a ConfigDict, a callback is not a function or returns what is neither true nor false,
        such as an array, `loss` does not return a scalar, or a network of one's own does not return what it has to.
      UserError: a setting is invalid, the dataset is missing, the work folder cannot be written, or training diverged.
    """
    finished = run_training(
        config,
        workdir,
        loss=loss,
        callbacks=callbacks,
        accept_changes=accept_changes,
        profile=profile,
    )
    workdir = as_path(workdir)
    with failing_together():  # none of them reads before the first one has written everything
        pass
    return TrainResult(load(resolved(workdir)), read_history(workdir), finished)


def run_training(
    config: ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    loss: Loss | None = None,
    callbacks: Sequence[Callback] = (),
    accept_changes: bool = False,
    profile: int | None = None,
) -> bool:
    """Trains a network as `train` does, without loading its weights and its history at the end.

    Returns:
      Whether the run is finished.
    """
    if not isinstance(config, ConfigDict):
        raise TypeError(f"config must be an ml_collections.ConfigDict, not {type(config).__name__}")
    if callable(callbacks) or not all(map(callable, callbacks := tuple(callbacks))):
        raise TypeError(f"callbacks must be a sequence of functions, not {callbacks!r}")
    workdir = as_path(workdir)
    with failing_together():
        unknown, config = unknown_entries(config), settings_of(config)
        check(config, jax.device_count())
        if loss is None:
            loss = LOSSES[config.loss]
        else:
            config = settings_of(config, loss=name_of_loss(loss))  # a run must not resume with another one unnoticed
    # The mesh and the guard of the caller are not for the run, which has a mesh of its own and moves its inputs.
    with jax.set_mesh(_NO_MESH), jax.transfer_guard("allow"):
        return _run(config, unknown, workdir, loss, callbacks, accept_changes, profile)


@jax.jit  # one program instead of several for each parameter
def _all_finite(params: Params) -> jax.Array:
    return jnp.isfinite(optax.tree.norm(params))


def _run(
    config: ConfigDict,
    unknown: Sequence[str],
    workdir: pathlib.Path,
    loss: Loss,
    callbacks: Sequence[Callback],
    accept_changes: bool,
    profile: int | None,
) -> bool:
    """Runs the training loop; returns whether it has reached the last step."""
    with failing_together():
        network = make_network(config, jax.local_devices()[0].platform, jax.device_count())
        if not isinstance(network, A2F):
            check_network(network, config.data.patch_size)
        check_loss(loss, network.scale * config.data.patch_size, 1 if isinstance(network, LumaNetwork) else 3)
        optimizer, rate = make_optimizer(config), jax.jit(learning_rate(config))
    primary = jax.process_index() == 0
    observed = _in_any_process(bool(callbacks))
    begun, resumes = False, False
    traces = _traces(workdir) if primary else []  # NFS remembers for other processes that a folder was missing
    with explaining_failures(config, lambda: begun or resumes), contextlib.ExitStack() as stack:
        with failing_together():
            buckets.check_checkpoints(workdir)
            # The lock first: the log files in a bucket are copied before they are continued, and once more at the end.
            claim = stack.enter_context(_locked_workdir(workdir)) if primary else None
            monitor = stack.enter_context(Monitor(workdir, active=primary))
            if primary:
                stack.push(lambda kind, *_: None if begun or kind is None else _remove(traces, monitor.folder))
        same = {f"config.{name}": value for name, value in flat(stored(config)).items() if name not in FOLDERS_OF_DATA}
        check_same({**same, "a2f_jax": __version__, "jax": jax.__version__})
        if not buckets.in_bucket(workdir):
            check_shared(workdir)
        if unknown:
            monitor.say(f"Ignoring entries of the config that are not settings: {', '.join(unknown)}")
        # Before the dataset is decoded, which may take minutes.
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(workdir, config, monitor.say)))
        with failing_together():
            checkpoints.check_settings(accept_changes)
            resumes = bool(checkpoints.steps)
            start = init_state(network, optimizer, config.seed, ema=config.ema_decay > 0)
            checkpoints.check_space(start)
            if config.init and not checkpoints.steps:
                start = initialize_from(config.init, start, config.model.scale, monitor.say)
            sets = open_whole_images(
                config.validation.sets,
                scale=network.scale,
                data_dir=config.validation.dir or None,
                process_index=jax.process_index(),
                process_count=jax.process_count(),
            )

        if degradation_of(config) is not None:
            monitor.say(
                f"LR images are made of HR images by config.data.degradation={config.data.degradation}, for training "
                "and for validation; those of the dataset are not used"
            )
        patches, images = open_training_data(config, network.scale)
        checkpoints.identify_images(digest_of(images))
        train_step = make_train_step(
            network,
            optimizer,
            loss=loss,
            ema_decay=config.ema_decay,
            accumulate=config.accumulate,
            freeze=config.optimizer.freeze,
            degrade=degrading(config, network.scale),
        )
        resident = resident_images(config, patches.cache)
        spmd = parallelize(train_step, config.spmd, resident=resident, donate=not config.checks)
        start = checkpoints.restore(spmd.get_state(spmd.put_state(start))) or start
        step = int(start.step)
        monitor.start(step, config.steps, config.batch_size)
        stopped = False
        if step and _is_due(step, config.validate_every, config) and not checkpoints.is_scored(step):
            with monitor.pause():  # validation failed, or the run was stopped before it
                checkpoints.record(step, _validate(network, start.weights, images, sets, monitor))
                stopped = observed and _stop_requested(callbacks, step, monitor, start)
        if step >= config.steps:
            monitor.say(
                f"Done: the run in {workdir} has reached step {step}. To train longer, set a larger config.steps"
            )
            return True
        if stopped:
            monitor.say(_stopped_by("a callback", step))
            return False
        with failing_together():
            if profile is not None and not step <= profile < config.steps:
                raise UserError(
                    f"{profile} is not a remaining step to profile: use one from {step} to {config.steps - 1}",
                    parameter="profile",
                )
        begun = True  # from here on, there is something to keep
        state = spmd.put_state(start)
        model = Model(network, start.params)
        frozen = jax.tree.leaves(frozen_parameters(start.params, config.optimizer.freeze))
        sizes = [x.size for x in jax.tree.leaves(start.params)]
        fixed = sum(size for size, kept in zip(sizes, frozen, strict=True) if kept)
        monitor.say(
            f"Training {model.variant} ×{model.scale} with {sum(sizes):,} parameters"
            + (f", of which {fixed:,} are frozen" if fixed else "")
        )
        monitor.log(parameter_overview.get_parameter_overview(start.params))
        monitor.say(
            f"{'Resuming' if step else 'Starting'} at step {step} of {config.steps} on {jax.device_count()} "
            f"{jax.devices()[0].device_kind} ({config.spmd}), in {workdir}"
        )
        del start, model  # frees its memory on every device

        def save(whole: TrainState) -> None:
            # The metrics were computed before the last update, so they say nothing about its result.
            if not _all_finite(whole.params):
                explain_divergence(patches, workdir, step - 1, config.seed, float(rate(step - 1)))
            with failing_together():
                if claim:
                    claim.check()
            checkpoints.save(whole)

        measured = StepMetrics()
        preemption = stack.enter_context(Preemption())
        counts = dispatch_sizes(config, step)
        inputs = stack.enter_context(contextlib.closing(dispatch_inputs(patches, resident, step, counts)))
        for count in dispatch_sizes(config, step):
            with monitor.waiting_for_data():
                batches = spmd.put_inputs(next(inputs))
            with tracing(monitor.folder, profile, step, count) as traced:
                if config.checks:
                    state, metrics = checked_step(spmd, train_step, patches, step, state, batches)
                else:
                    state, metrics = spmd.step(state, batches)
                if traced:
                    jax.block_until_ready(metrics)
            measured.add(step, metrics)
            step += count
            monitor.advance(step)

            stop = preemption.requested()
            due_log = _is_due(step, config.log_every, config)
            due_validation = _is_due(step, config.validate_every, config)
            due_save = due_validation or step % config.checkpoint_every == 0 or stop
            whole = None
            if due_log or due_save:
                means, bad = measured.take()
                if bad is not None:  # checked before anything is saved
                    explain_divergence(patches, workdir, bad, config.seed, float(rate(bad)))
                if due_log and means:
                    measured.clear()
                    monitor.report({**means, "learning_rate": float(rate(step - 1))})
            if due_save:
                with monitor.pause():
                    whole = spmd.get_state(state)
                    save(whole)
                    if due_validation and (not stop or step == config.steps):
                        checkpoints.record(step, _validate(network, whole.weights, images, sets, monitor))
            if observed and (due_log or due_validation):
                with monitor.pause():
                    whole = whole or spmd.get_state(state)
                    stopped = _stop_requested(callbacks, step, monitor, whole)
                    if stopped and not due_save:
                        save(whole)
            if (stop or stopped) and step < config.steps:
                checkpoints.wait()
                monitor.say(_stopped_by("a signal" if stop else "a callback", step))
                if preemption.interrupted:
                    raise KeyboardInterrupt
                return False
        checkpoints.wait()
        measure = ["a2f", "evaluate", "--weights", str(workdir), "--datasets", config.data.name]
        if config.data.dir:
            measure += ["--data", config.data.dir]
        monitor.say(f"Done: {count_of(config.steps, 'step')}. To measure the best checkpoint: {shlex.join(measure)}")
    return True


def _in_any_process(value: bool) -> bool:
    return value if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(value)).any())


def _stop_requested(callbacks: Sequence[Callback], step: int, monitor: Monitor, state: TrainState) -> bool:
    """Calls the callbacks in the first process; returns in every process whether one of them asks to stop."""
    stop = False
    with failing_together():
        if metrics := monitor.take_metrics():  # which only the first process has
            # Copies, because another process would have to take part in computations with global arrays.
            host = jax.device_get(state)
            stop = any([_is_true(callback(step, dict(metrics), host), callback) for callback in callbacks])
    return _in_any_process(stop)


def _is_true(value: object, callback: Callback) -> bool:
    if isinstance(value, Coroutine):
        value.close()  # which would warn otherwise
    else:
        with contextlib.suppress(ValueError, TypeError):  # such as an array of several elements
            return bool(value)
    name = getattr(callback, "__name__", type(callback).__name__)
    raise TypeError(
        f"the callback {name} returned a value of type {type(value).__name__}, which is neither true nor false: "
        "return True to stop the run, or nothing"
    )


def _stopped_by(cause: str, step: int) -> str:
    return f"Stopped by {cause} after step {step}; the state is saved. To resume, run the same command"


def _is_due(step: int, every: int, config: ConfigDict) -> bool:
    return step % every == 0 or step == config.steps


def _validate(
    network: Network,
    weights: Params,
    images: list[tuple[np.ndarray, np.ndarray]],
    sets: Sequence[WholeImages],
    monitor: Monitor,
) -> dict[str, float]:
    """Measures the weights and reports the scores; returns those on the held-out images."""
    model = Model(network, jax.device_get(weights))
    with failing_together():
        held_out, picture = validate(model, images)
        sums = np.stack([held_out, *(validate(model, each)[0] for each in sets)])
    if jax.process_count() > 1:
        sums = np.sum(multihost_utils.process_allgather(sums), 0)
    scores, *of_sets = ({"psnr": psnr / count, "ssim": ssim / count} for psnr, ssim, count in sums.tolist())
    flat = flax.traverse_util.flatten_dict(model.params, sep="/")
    with failing_together():
        monitor.validated(scores, picture, {each.name: found for each, found in zip(sets, of_sets, strict=True)})
        monitor.record("lambda", {name: value for name, value in flat.items() if "/lambda_" in name})
    return scores


def _traces(workdir: pathlib.Path) -> list[pathlib.Path]:
    """Returns what a run that is about to start would leave behind if it were refused, innermost first."""
    names = ("train.log", FILE, "lock", FOLDER)
    above = () if buckets.in_bucket(workdir) else (workdir, *workdir.absolute().parents)
    return [path for path in (*(workdir / name for name in names), *above) if not exists(path)]


def _remove(traces: Sequence[pathlib.Path], folder: pathlib.Path) -> None:
    for trace in traces:
        path = folder / trace.name if trace.name in ("train.log", FILE) else trace  # not yet copied to a bucket
        with contextlib.suppress(OSError):  # a folder that is not empty
            path.rmdir() if path.is_dir() else path.unlink()


@contextlib.contextmanager
def _locked_workdir(workdir: pathlib.Path) -> Iterator[buckets.Claim | None]:
    claim = None
    with contextlib.ExitStack() as stack:
        try:
            if buckets.in_bucket(workdir):
                claim = stack.enter_context(buckets.Claim(workdir / "lock"))
            else:
                workdir.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(workdir / "lock", wait=False))
        except BlockingIOError:
            raise UserError(f"another run is using {workdir}: wait for it to end, or use another work folder") from None
        except OSError:
            pass  # the file system does not support locks, or the folder cannot be written, as the monitor will find
        yield claim
