"""One training step on every device: `shard_map` over a mesh, or `pmap`.

Both run the same per-device step, which ends in `lax.pmean` over the axis `"data"`, on every device of every
process. Since JAX 0.8 `pmap` is itself a layer over `jit` and `shard_map`; what differs is how arrays look from
outside. Under `shard_map` an array is one global array with a sharding, which is how the rest of JAX, Orbax
included, sees the world; it is the default. `pmap` keeps one row per local device, as much existing code for TPU
pods expects it.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from a2f_jax.errors import UserError
from a2f_jax.training.state import TrainState
from a2f_jax.training.step import AXIS, Metrics, TrainStep


class Spmd(NamedTuple):
    """A training step spread over the devices, and the way in and out of it.

    Attributes:
      step: `(state, batches) -> (state, metrics)`, several updates in one dispatch; the state given to it is
        consumed. Each metric has one value per update, `[K]`.
      put_state: turns a state (host arrays, or global arrays as `get_state` gives) into what `step` takes.
      put_batches: does so for this process's share of K batches, a dict of uint8 `[K, B / processes, h, w, 3]`.
      get_state: turns `step`'s state into one of global arrays, replicated over all devices; copies, so that
        the state may be donated while a checkpoint is still being written.
    """

    step: Callable[[Any, Any], tuple[Any, Metrics]]
    put_state: Callable[[TrainState], Any]
    put_batches: Callable[[dict[str, np.ndarray]], Any]
    get_state: Callable[[Any], TrainState]


def device_mesh() -> jax.sharding.Mesh:
    """Returns all devices of all processes in a row, the axis `"data"`: a process's devices stand together."""
    return jax.sharding.Mesh(jax.devices(), (AXIS,))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Returns the sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def _updates(train_step: TrainStep, state: TrainState, batches: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
    """Does one update for each batch along the first axis."""
    if len(batches["lr"]) > 1:
        return jax.lax.scan(train_step, state, batches)
    # A loop of one round would still be a loop to XLA's CPU compiler, which is slower inside of loops.
    state, metrics = train_step(state, jax.tree.map(lambda x: x[0], batches))
    return state, jax.tree.map(lambda x: x[None], metrics)


def _copy(state: TrainState) -> TrainState:
    return jax.tree.map(lambda x: x.copy(), state)


def _shard_map(train_step: TrainStep, donate: tuple[int, ...]) -> Spmd:
    mesh = device_mesh()
    whole, split = PartitionSpec(), PartitionSpec(None, AXIS)
    step = jax.shard_map(
        functools.partial(_updates, train_step),
        mesh=mesh,
        in_specs=(whole, split),
        out_specs=(whole, whole),
        # The step reduces over the axis itself, as under pmap; checking would insert a second reduction.
        check_vma=False,
    )
    return Spmd(
        step=jax.jit(step, donate_argnums=donate),
        put_state=lambda state: jax.device_put(state, replicated(mesh)),
        put_batches=functools.partial(jax.make_array_from_process_local_data, NamedSharding(mesh, split)),
        get_state=_copy,
    )


def _pmap(train_step: TrainStep, donate: tuple[int, ...]) -> Spmd:
    mesh = device_mesh()
    devices = jax.local_devices()
    # One row per local device.
    rows = NamedSharding(jax.sharding.Mesh(devices, (AXIS,)), PartitionSpec(AXIS))

    def put_state(state: TrainState) -> Any:
        def put(x: Any) -> jax.Array:
            value = np.asarray(x.addressable_data(0) if isinstance(x, jax.Array) else x)
            return jax.device_put(np.broadcast_to(value, (len(devices), *value.shape)), rows)

        return jax.tree.map(put, state)

    def put_batches(batches: dict[str, np.ndarray]) -> Any:
        def put(x: np.ndarray) -> jax.Array:
            k, b, *rest = x.shape
            return jax.device_put(x.reshape(k, len(devices), b // len(devices), *rest).swapaxes(0, 1), rows)

        return jax.tree.map(put, batches)

    def get_state(state: Any) -> TrainState:
        first = jax.tree.map(lambda x: np.asarray(x.addressable_data(0))[0], state)
        return jax.device_put(first, replicated(mesh))

    step = jax.pmap(functools.partial(_updates, train_step), axis_name=AXIS, donate_argnums=donate)

    def step_and_first_metrics(state: Any, batches: Any) -> tuple[Any, Metrics]:
        state, metrics = step(state, batches)
        return state, jax.tree.map(lambda x: x.addressable_data(0)[0], metrics)

    return Spmd(step_and_first_metrics, put_state, put_batches, get_state)


def parallelise(train_step: TrainStep, mode: str, *, donate: bool = True) -> Spmd:
    """Spreads a per-device training step over all devices of all processes.

    Args:
      train_step: from `make_train_step`.
      mode: `"shard_map"` or `"pmap"`.
      donate: whether a step may overwrite the state it is given, which saves memory.

    Raises:
      UserError: the mode is unknown.
    """
    modes = {"shard_map": _shard_map, "pmap": _pmap}
    if mode not in modes:
        raise UserError(f"config.spmd={mode!r} is unknown: choose one of {', '.join(modes)}")
    return modes[mode](train_step, (0,) if donate else ())
