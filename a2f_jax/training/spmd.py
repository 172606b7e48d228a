"""One training step on every device: `shard_map` over a mesh, or `pmap`.

Both run the same per-device step, which ends in `lax.pmean` over the axis `"data"`, on every device of every
process. Since JAX 0.8 `pmap` is itself a layer over `jit` and `shard_map`; what differs is how arrays look from
outside. Under `shard_map` an array is one global array with a sharding, which is how the rest of JAX, Orbax
included, sees the world; it is the default. `pmap` keeps one row per local device, as much existing code for TPU
pods expects it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from a2f_jax.errors import UserError
from a2f_jax.training.state import TrainState
from a2f_jax.training.step import AXIS, Batch, Metrics, TrainStep


class Spmd(NamedTuple):
    """A training step spread over the devices, and the way in and out of it.

    Attributes:
      step: `(state, inputs) -> (state, metrics)`, several updates in one dispatch; the state given to it is
        consumed. Each metric has one value per update, `[K]`.
      put_state: turns a state (host arrays, or global arrays as `get_state` gives) into what `step` takes.
      put_inputs: turns the inputs of K updates into what `step` takes. Without `Resident` images they are this
        process's share of K batches, a dict of uint8 `[K, B / processes, h, w, 3]`; with them, any array `[K]`.
      get_state: turns `step`'s state into one of global arrays, replicated over all devices; copies, so that
        the state may be donated while a checkpoint is still being written.
    """

    step: Callable[[Any, Any], tuple[Any, Metrics]]
    put_state: Callable[[TrainState], Any]
    put_inputs: Callable[[Any], Any]
    get_state: Callable[[Any], TrainState]


class Resident(NamedTuple):
    """Training images that lie in the memory of every device.

    Attributes:
      images: pytree of host arrays.
      cut: `(images, step, rows) -> batch`, jittable; rows are places in the whole batch, uint32 `[b]`.
      batch_size: over all devices.
    """

    images: Any
    cut: Callable[[Any, jax.Array, jax.Array], Batch]
    batch_size: int


def _replicate(tree: Any, everywhere: NamedSharding) -> Any:
    """Puts values that all processes have on all devices; global arrays stay as they are."""

    def put(x: Any) -> jax.Array:
        if isinstance(x, jax.Array) and x.sharding == everywhere:
            return x
        # `device_put` would compare the values among the processes, over the network.
        return jax.make_array_from_process_local_data(everywhere, np.asarray(x), np.shape(x))

    return jax.tree.map(put, tree)


# (state, one update's input) -> (state, metrics)
_Update = Callable[[TrainState, Any], tuple[TrainState, Metrics]]


def _updates(update: _Update, state: TrainState, inputs: Any) -> tuple[TrainState, Metrics]:
    """Does one update for each entry along the inputs' first axis."""
    if len(jax.tree.leaves(inputs)[0]) > 1:
        return jax.lax.scan(update, state, inputs)
    # A loop of one round would still be a loop to XLA's CPU compiler, which is slower inside of loops.
    state, metrics = update(state, jax.tree.map(lambda x: x[0], inputs))
    return state, jax.tree.map(lambda x: x[None], metrics)


def _per_device(train_step: TrainStep, resident: Resident | None) -> Callable[[TrainState, Any, Any], Any]:
    """Returns `(state, images, inputs) -> (state, metrics)`, what each device does in a dispatch."""
    if resident is None:
        return lambda state, _, batches: _updates(train_step, state, batches)
    share = resident.batch_size // jax.device_count()

    def run(state: TrainState, images: Any, turns: jax.Array) -> tuple[TrainState, Metrics]:
        rows = (jax.lax.axis_index(AXIS) * share + jnp.arange(share)).astype(jnp.uint32)

        def update(state: TrainState, _: jax.Array) -> tuple[TrainState, Metrics]:
            return train_step(state, resident.cut(images, state.step, rows))

        return _updates(update, state, turns)

    return run


def _shard_map(train_step: TrainStep, resident: Resident | None, donate: tuple[int, ...]) -> Spmd:
    mesh = Mesh(jax.devices(), (AXIS,))
    whole = PartitionSpec()
    split = PartitionSpec(None, AXIS) if resident is None else whole
    everywhere, shares = NamedSharding(mesh, whole), NamedSharding(mesh, split)
    step = jax.jit(
        jax.shard_map(
            _per_device(train_step, resident),
            mesh=mesh,
            in_specs=(whole, whole, split),
            out_specs=(whole, whole),
            # The step reduces over the axis itself, as under pmap; checking would insert a second reduction.
            check_vma=False,
        ),
        donate_argnums=donate,
    )
    images = None if resident is None else _replicate(resident.images, everywhere)

    def put_inputs(inputs: Any) -> Any:
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(shares, x), inputs)

    return Spmd(
        step=lambda state, inputs: step(state, images, inputs),
        put_state=lambda state: _replicate(state, everywhere),
        put_inputs=put_inputs,
        get_state=lambda state: jax.tree.map(lambda x: x.copy(), state),
    )


def _pmap(train_step: TrainStep, resident: Resident | None, donate: tuple[int, ...]) -> Spmd:
    devices = jax.local_devices()
    rows = NamedSharding(Mesh(devices, (AXIS,)), PartitionSpec(AXIS))
    everywhere = NamedSharding(Mesh(jax.devices(), (AXIS,)), PartitionSpec())

    def put_rows(tree: Any) -> Any:
        """Gives each local device a row with the same values."""

        def put(x: Any) -> jax.Array:
            value = np.asarray(x.addressable_data(0) if isinstance(x, jax.Array) else x)
            return jax.device_put(np.broadcast_to(value, (len(devices), *value.shape)), rows)

        return jax.tree.map(put, tree)

    def split_rows(batches: dict[str, np.ndarray]) -> Any:
        """`[K, b, ...]` → `[devices, K, b / devices, ...]`."""

        def put(x: np.ndarray) -> jax.Array:
            k, b, *rest = x.shape
            return jax.device_put(x.reshape(k, len(devices), b // len(devices), *rest).swapaxes(0, 1), rows)

        return jax.tree.map(put, batches)

    def get_state(state: Any) -> TrainState:
        return _replicate(jax.tree.map(lambda x: np.array(x.addressable_data(0)[0]), state), everywhere)

    step = jax.pmap(_per_device(train_step, resident), axis_name=AXIS, donate_argnums=donate)
    images = None if resident is None else put_rows(resident.images)

    def step_and_first_metrics(state: Any, inputs: Any) -> tuple[Any, Metrics]:
        state, metrics = step(state, images, inputs)
        return state, jax.tree.map(lambda x: x.addressable_data(0)[0], metrics)

    return Spmd(step_and_first_metrics, put_rows, split_rows if resident is None else put_rows, get_state)


def parallelise(train_step: TrainStep, mode: str, *, resident: Resident | None = None, donate: bool = True) -> Spmd:
    """Spreads a per-device training step over all devices of all processes.

    Args:
      train_step: from `make_train_step`.
      mode: `"shard_map"` or `"pmap"`.
      resident: images from which each device cuts its share of a batch itself.
      donate: whether a step may overwrite the state it is given, which saves memory.

    Raises:
      UserError: the mode is unknown.
    """
    modes = {"shard_map": _shard_map, "pmap": _pmap}
    if mode not in modes:
        raise UserError(f"config.spmd={mode!r} is unknown: choose one of {', '.join(modes)}")
    return modes[mode](train_step, resident, (0,) if donate else ())
