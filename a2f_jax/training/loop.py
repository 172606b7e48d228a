"""The training loop, from a config to trained weights."""

import contextlib
import dataclasses
import functools
import itertools
import math
import pathlib
from collections.abc import Callable, Generator, Iterator
from typing import Any

import flax.traverse_util
import jax
import numpy as np
import optax
from clu import parameter_overview
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from a2f_jax.data import Cache, Patches, open_cache, open_pairs
from a2f_jax.data.device_patches import device_batch, device_images
from a2f_jax.data.parallel import locked
from a2f_jax.errors import UserError
from a2f_jax.models.a2f import A2F, VARIANTS, Params
from a2f_jax.models.model import Model
from a2f_jax.models.weights import load
from a2f_jax.training.checkpoints import Checkpoints
from a2f_jax.training.monitor import Monitor
from a2f_jax.training.optimizer import learning_rate, make_optimizer
from a2f_jax.training.preemption import Preemption
from a2f_jax.training.spmd import Resident, parallelise
from a2f_jax.training.state import TrainState, init_state
from a2f_jax.training.step import Metrics, make_train_step
from a2f_jax.training.validation import middle, validate


def make_network(config: ConfigDict) -> A2F:
    """Returns the network that `config.model` describes; `UserError` if there is none such."""
    settings = config.model.to_dict()
    try:
        size = VARIANTS[settings.pop("variant")]
        # The paper's ablations (configs/ablation.py) set the number of blocks themselves.
        return A2F(**{"features": size.features, "blocks": size.blocks, **settings})
    except KeyError as error:
        raise UserError(f"config.model.variant={error} is unknown: choose one of {', '.join(VARIANTS)}") from None
    except TypeError as error:
        raise UserError(f"config.model: {error}") from None


def check(config: ConfigDict) -> None:
    """Raises a `UserError` for settings that cannot work together, before any work is done."""
    counts = {
        **{name: config[name] for name in ("steps", "steps_per_dispatch", "log_every", "checkpoint_every")},
        **{name: config[name] for name in ("validate_every", "validation_images", "keep_checkpoints", "accumulate")},
        "data.patch_size": config.data.patch_size,
    }
    for name, value in counts.items():
        if value < 1:
            raise UserError(f"config.{name}={value} must be at least 1")
    if config.optimizer.clip_norm < 0:
        raise UserError(
            f"config.optimizer.clip_norm={config.optimizer.clip_norm} must not be negative: 0 is no clipping"
        )
    if not 0 <= config.ema_decay < 1:
        raise UserError(f"config.ema_decay={config.ema_decay} must be at least 0 and below 1: 0 is no average")
    devices, batch = jax.device_count(), config.batch_size
    if batch < 1 or batch % (devices * config.accumulate):
        raise UserError(
            f"config.batch_size={batch} cannot be shared out among {devices} devices in {config.accumulate} parts "
            f"(config.accumulate): choose a multiple of {devices * config.accumulate}"
        )
    if config.data.placement not in ("host", "device"):
        raise UserError(f"config.data.placement={config.data.placement!r} is unknown: choose 'host' or 'device'")
    if config.model.dtype not in ("float32", "bfloat16"):
        raise UserError(f"config.model.dtype={config.model.dtype!r} is unknown: choose 'float32' or 'bfloat16'")


def warm_start(params: Params, weights: Params) -> tuple[Params, list[str]]:
    """Takes over those weights whose names and shapes fit, such as all but tail and skip from another scale.

    Args:
      params: the parameters of a new run.
      weights: those of another.

    Returns:
      The parameters to start from, and the names of those that stay as they were.
    """
    flat, given = (flax.traverse_util.flatten_dict(tree, sep=".") for tree in (params, weights))
    fits = {name: name in given and given[name].shape == value.shape for name, value in flat.items()}
    merged = {name: given[name] if fits[name] else value for name, value in flat.items()}
    return flax.traverse_util.unflatten_dict(merged, sep="."), [name for name in flat if not fits[name]]


def _from_weights(config: ConfigDict, state: TrainState, say) -> TrainState:
    """A new run's state with the weights of `config.init`, where there are any."""
    if not config.init:
        return state
    params, left = warm_start(state.params, load(config.init).params)
    if len(left) == len(jax.tree.leaves(state.params)):
        raise UserError(f"config.init={config.init} has no parameter that fits {config.model.variant}")
    say(f"Starting from {config.init}" + (f"; new are {', '.join(left)}" if left else ""))
    params = jax.tree.map(jax.numpy.asarray, params)
    ema = None if state.ema is None else jax.tree.map(jax.numpy.copy, params)
    return dataclasses.replace(state, params=params, ema=ema)


def _dispatches(config: ConfigDict, start: int) -> Iterator[int]:
    """How many updates each dispatch does: none crosses a step at which something is due."""
    step = start
    while step < config.steps:
        ends = (config.log_every, config.checkpoint_every, config.validate_every)
        count = min(config.steps_per_dispatch, config.steps - step, *(every - step % every for every in ends))
        yield count
        step += count


def _resident(config: ConfigDict, cache: Cache) -> Resident | None:
    """The training images for the devices' memory, where the config asks for it."""
    if config.data.placement == "host":
        return None
    cut = functools.partial(device_batch, scale=cache.scale, patch_size=config.data.patch_size)
    return Resident(
        device_images(cache),
        lambda images, step, rows: cut(images, seed=config.seed, step=step, rows=rows),
        config.batch_size,
    )


def _inputs(patches: Patches, resident: Resident | None, step: int, counts: list[int]) -> Generator[Any]:
    """What the dispatches take: stacked batches, or, where the devices cut them themselves, just their number."""
    if resident is not None:
        yield from map(np.arange, counts)
        return
    with contextlib.closing(patches.prefetch(step)) as batches:
        for count in counts:
            taken = list(itertools.islice(batches, count))
            if count == 1:
                yield {key: value[None] for key, value in taken[0].items()}  # nothing to copy
            else:
                yield {key: np.stack([batch[key] for batch in taken]) for key in taken[0]}


class _Figures:
    """Losses and gradient norms as they come from the devices, without waiting for them before they are needed."""

    def __init__(self) -> None:
        self._pending: list[tuple[int, Metrics]] = []

    def add(self, first_step: int, metrics: Metrics) -> None:
        self._pending.append((first_step, metrics))
        # The devices may run two dispatches ahead of what the host has seen, not more.
        if len(self._pending) > 2:
            jax.block_until_ready(self._pending[-3][1])

    def clear(self) -> None:
        """Begins anew."""
        self._pending.clear()

    def take(self) -> tuple[dict[str, float], int | None]:
        """Returns the means since `clear`, and the first step whose loss or gradient was not finite."""
        values: dict[str, list[float]] = {}
        bad = None
        for first_step, metrics in self._pending:
            host = jax.device_get(metrics)
            for name, series in host.items():
                values.setdefault(name, []).extend(map(float, series))
                broken = np.flatnonzero(~np.isfinite(series))
                if broken.size and bad is None:
                    bad = first_step + int(broken[0])
        return {name: math.fsum(series) / len(series) for name, series in values.items()}, bad


def train(
    config: ConfigDict,
    workdir: pathlib.Path,
    *,
    accept_changes: bool = False,
    profile: int | None = None,
) -> None:
    """Trains a network, going on from the newest checkpoint in the work folder if there is one.

    Args:
      config: the settings, of the form of `configs/a2f.py`.
      workdir: receives checkpoints, logs, and pictures; made where it does not exist.
      accept_changes: goes on with a run although settings that matter have changed.
      profile: a step from which on a few dispatches are traced into `workdir/profile`, for TensorBoard or Perfetto.

    Raises:
      UserError: a setting is impossible, the data are missing, the folder cannot be written, or training diverged.
    """
    check(config)
    network = make_network(config)
    primary = jax.process_index() == 0
    with contextlib.ExitStack() as stack:
        monitor = stack.enter_context(Monitor(workdir, active=primary))
        if primary:
            stack.enter_context(_alone(workdir))
        if not jax.config.values["jax_compilation_cache_dir"]:  # which users may have set for all they run
            jax.config.update("jax_compilation_cache_dir", str(workdir.resolve() / "compiled"))

        data_dir = config.data.dir or None
        # Files that one machine writes and all share cannot be locked everywhere: the first process decodes alone.
        if not primary:
            multihost_utils.sync_global_devices("decoded")
        cache = open_cache(config.data.name, scale=network.scale, split="train", data_dir=data_dir)
        if primary:
            multihost_utils.sync_global_devices("decoded")
        held_out = open_pairs(config.data.name, scale=network.scale, split="validation", data_dir=data_dir)
        chosen = range(min(len(held_out), config.validation_images))[jax.process_index() :: jax.process_count()]
        images = [middle(held_out[i], network.scale) for i in chosen]
        patches = Patches(
            cache,
            seed=config.seed,
            batch_size=config.batch_size,
            patch_size=config.data.patch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

        step_fn = make_train_step(
            network, make_optimizer(config), ema_decay=config.ema_decay, accumulate=config.accumulate
        )
        resident = _resident(config, cache)
        spmd = parallelise(step_fn, config.spmd, resident=resident, donate=not config.checks)
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(workdir, config, monitor.say)))
        initial = init_state(network, make_optimizer(config), config.seed, ema=config.ema_decay > 0)
        restored = checkpoints.restore(spmd.get_state(spmd.put_state(initial)), accept_changes)
        start = restored or _from_weights(config, initial, monitor.say)
        step = int(start.step)
        if step >= config.steps:
            monitor.say(f"Done: the run in {workdir} is at step {step} of {config.steps}; raise config.steps to go on")
            return
        if profile is not None and not step <= profile < config.steps:
            raise UserError(f"--profile {profile} is not among the steps {step} to {config.steps - 1} that are to come")
        state = spmd.put_state(start)
        rate = learning_rate(config)
        figures = _Figures()
        preemption = stack.enter_context(Preemption())

        def report(log: bool) -> None:
            """Fetches what the devices have measured; nothing is saved that is not finite."""
            means, bad = figures.take()
            if bad is not None:
                _explain_divergence(config, patches, workdir, bad, float(rate(bad)))
            if log and means:
                figures.clear()
                monitor.report({**means, "learning_rate": float(rate(step - 1))})

        def save(validated: bool) -> None:
            with monitor.pause():
                whole = spmd.get_state(state)
                # The loss and the gradient are those before the last update.
                if not np.isfinite(optax.tree.norm(whole.params)):
                    _explain_divergence(config, patches, workdir, step - 1, float(rate(step - 1)))
                scores = None
                if validated:
                    scores = _validate(network, whole.weights, images, monitor)
                checkpoints.save(whole, scores)

        monitor.start(step, config.steps, config.batch_size)
        monitor.log(parameter_overview.get_parameter_overview(start.params))
        monitor.say(
            f"{'Going on' if step else 'Starting'} at step {step} of {config.steps} on {jax.device_count()} "
            f"{jax.devices()[0].device_kind} ({config.spmd}), in {workdir}"
        )
        del initial, restored, start  # which take memory on every device
        counts = list(_dispatches(config, step))
        inputs = stack.enter_context(contextlib.closing(_inputs(patches, resident, step, counts)))
        for count in counts:
            with monitor.waiting_for_data():
                batches = spmd.put_inputs(next(inputs))
            with _tracing(workdir, profile, step, count) as traced:
                state, metrics = (_checked(spmd.step, step) if config.checks else spmd.step)(state, batches)
                if traced:
                    jax.block_until_ready(metrics)
            figures.add(step, metrics)
            step += count
            monitor.advance(step)
            last = step == config.steps
            stop = preemption.requested()
            log = step % config.log_every == 0 or last
            validated = step % config.validate_every == 0 or last
            saved = validated or step % config.checkpoint_every == 0 or stop
            if log or saved:
                report(log)
            if saved:
                save(validated)
            if stop and not last:
                checkpoints.wait()
                monitor.say(f"Stopped by a signal after step {step}; all is saved. The same command goes on from there")
                return
        checkpoints.wait()
        monitor.say(f"Done: {config.steps} steps. `a2f evaluate --weights {workdir}` measures the best checkpoint")


def _validate(
    network: A2F, weights: Params, images: list[tuple[np.ndarray, np.ndarray]], monitor: Monitor
) -> dict[str, float]:
    """Validates on all processes' images and reports; every process returns the same scores."""
    model = Model(network, jax.device_get(weights))
    sums, picture = validate(model, images)
    if jax.process_count() > 1:
        sums = np.sum(multihost_utils.process_allgather(sums), 0)
    psnr, ssim, count = sums.tolist()
    scores = {"psnr": psnr / count, "ssim": ssim / count}
    monitor.validated(scores, picture)
    flat = flax.traverse_util.flatten_dict(model.params, sep="/")
    monitor.record("lambda", {name: value for name, value in flat.items() if "/lambda_" in name})
    return scores


@contextlib.contextmanager
def _alone(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps other runs out of a work folder."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(workdir / "lock", wait=False))
        except BlockingIOError:
            raise UserError(f"another run works in {workdir}: wait for its end, or choose a new --workdir") from None
        except OSError:
            pass  # a file system without locks
        yield


@contextlib.contextmanager
def _tracing(workdir: pathlib.Path, profile: int | None, step: int, count: int) -> Iterator[bool]:
    """Traces the dispatch that holds the step `profile`; says whether this is it, and then is to be waited for."""
    traced = profile is not None and step <= profile < step + count
    with jax.profiler.trace(str(workdir / "profile")) if traced else contextlib.nullcontext():
        yield traced


def _checked(run: Callable[[Any, Any], Any], step: int) -> Callable[[Any, Any], Any]:
    """For `config.checks`: nothing may move between host and devices unasked, and a NaN is traced to its origin."""

    def run_checked(state: Any, inputs: Any) -> Any:
        try:
            with jax.debug_nans(False), jax.transfer_guard("disallow"):
                jax.block_until_ready(run(state, inputs))
            # Again, since the search for a NaN's origin, operation by operation, moves constants.
            with jax.debug_nans(True):
                return run(state, inputs)
        except FloatingPointError as error:
            raise UserError(f"config.checks found a NaN at step {step}: {error}") from error

    return run_checked


def _explain_divergence(config: ConfigDict, patches: Patches, workdir: pathlib.Path, step: int, rate: float) -> Any:
    chosen = patches.choice(step)[0]
    names = ", ".join(sorted({patches.cache.names[i] for i in chosen}))
    raise UserError(
        f"the loss, its gradient or the weights after it are not finite at step {step} (learning rate {rate:.3g}, "
        f"batch {step} of seed {config.seed}: {names}). The checkpoints in {workdir}, if there are any, are from "
        "before; lower config.optimizer.learning_rate, or set config.optimizer.clip_norm, and start again with "
        "--accept-changes"
    )
