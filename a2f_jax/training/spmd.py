"""Data parallelism: runs the training step on every device, through `shard_map` over a mesh or through `pmap`.

Both run the same per-device step, which ends in `lax.pmean` over the axis `"data"`, on every device of every process.
Since JAX 0.8, `pmap` is itself implemented with `jit` and `shard_map`; the two differ in how arrays look to the
caller. With `shard_map`, the default, an array is one global array with a sharding, which is what the rest of JAX and
Orbax expect. With `pmap`, an array has one row per local device, which is what much existing code for TPU pods expects.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from a2f_jax.training.state import TrainState
from a2f_jax.training.step import AXIS, Batch, Metrics, TrainStep


class Spmd(NamedTuple):
    """A training step that runs on all devices, with the functions that convert its inputs and outputs.

    Attributes:
      step: `(state, inputs) -> (state, metrics)`; performs K updates in one dispatch and consumes the given state.
        Each metric has shape `[K]`, one value per update.
      put_state: converts a state of host arrays, or of global arrays as returned by `get_state`, to the form that
        `step` takes.
      put_inputs: converts the inputs of K updates to the form that `step` takes. Without `Resident` images the inputs
        are this process's share of K batches, a dict of uint8 `[K, B / processes, h, w, 3]`; with them, any array
        of shape `[K]`.
      get_state: converts the state that `step` returns to global arrays, replicated over all devices. The arrays are
        copies, so that the state may be donated while a checkpoint is still being written.
    """

    step: Callable[[Any, Any], tuple[Any, Metrics]]
    put_state: Callable[[TrainState], Any]
    put_inputs: Callable[[Any], Any]
    get_state: Callable[[Any], TrainState]


class Resident(NamedTuple):
    """Training images that stay in the memory of every device.

    Attributes:
      images: a pytree of host arrays.
      crop: `(images, step, rows) -> batch`, a jittable function that crops patches; `rows` are indices into the global
        batch, uint32 `[b]`.
      batch_size: the global batch size.
    """

    images: Any
    crop: Callable[[Any, jax.Array, jax.Array], Batch]
    batch_size: int


def _replicate(tree: Any, everywhere: NamedSharding) -> Any:
    def put(x: Any) -> jax.Array:
        if isinstance(x, jax.Array) and x.sharding == everywhere:
            return x
        # `device_put` would compare the values across processes, over the network.
        return jax.make_array_from_process_local_data(everywhere, np.asarray(x), np.shape(x))

    return jax.tree.map(put, tree)


# (state, one update's input) -> (state, metrics)
_Update = Callable[[TrainState, Any], tuple[TrainState, Metrics]]


def _updates(update: _Update, state: TrainState, inputs: Any) -> tuple[TrainState, Metrics]:
    if len(jax.tree.leaves(inputs)[0]) > 1:
        return jax.lax.scan(update, state, inputs)
    # XLA's CPU backend runs slower code inside loops, even in a loop of one iteration.
    state, metrics = update(state, jax.tree.map(lambda x: x[0], inputs))
    return state, jax.tree.map(lambda x: x[None], metrics)


def _per_device(
    train_step: TrainStep, resident: Resident | None, device_count: int
) -> Callable[[TrainState, Any, Any], Any]:
    """Returns the function that each device runs in a dispatch, `(state, images, inputs) -> (state, metrics)`."""
    if resident is None:
        return lambda state, _, batches: _updates(train_step, state, batches)
    share = resident.batch_size // device_count

    def run(state: TrainState, images: Any, turns: jax.Array) -> tuple[TrainState, Metrics]:
        rows = (jax.lax.axis_index(AXIS) * share + jnp.arange(share)).astype(jnp.uint32)

        def update(state: TrainState, _: jax.Array) -> tuple[TrainState, Metrics]:
            return train_step(state, resident.crop(images, state.step, rows))

        return _updates(update, state, turns)

    return run


def _shard_map(
    train_step: TrainStep, resident: Resident | None, devices: Sequence[jax.Device], donate: tuple[int, ...]
) -> tuple[Any, NamedSharding, NamedSharding]:
    """Returns the jitted dispatch, and the shardings of the state and of the inputs."""
    mesh = Mesh(np.array(devices), (AXIS,))
    whole = PartitionSpec()
    split = PartitionSpec(None, AXIS) if resident is None else whole
    step = jax.jit(
        jax.shard_map(
            _per_device(train_step, resident, len(devices)),
            mesh=mesh,
            in_specs=(whole, whole, split),
            out_specs=(whole, whole),
            # The step itself reduces over the axis, as with pmap; the check would insert a second reduction.
            check_vma=False,
        ),
        donate_argnums=donate,
    )
    return step, NamedSharding(mesh, whole), NamedSharding(mesh, split)


def _pmap(
    train_step: TrainStep, resident: Resident | None, devices: Sequence[jax.Device] | None, donate: tuple[int, ...]
) -> Any:
    """Returns the dispatch as a `pmap`; None stands for all devices, of which each process passes its own rows."""
    count = jax.device_count() if devices is None else len(devices)
    return jax.pmap(_per_device(train_step, resident, count), axis_name=AXIS, devices=devices, donate_argnums=donate)


def _parallelize_with_shard_map(train_step: TrainStep, resident: Resident | None, donate: tuple[int, ...]) -> Spmd:
    step, everywhere, shares = _shard_map(train_step, resident, jax.devices(), donate)
    images = None if resident is None else _replicate(resident.images, everywhere)
    # One program instead of one for each array.
    copied = jax.jit(lambda state: jax.tree.map(jnp.copy, state), out_shardings=everywhere)

    def put_inputs(inputs: Any) -> Any:
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(shares, x), inputs)

    return Spmd(
        step=lambda state, inputs: step(state, images, inputs),
        put_state=lambda state: _replicate(state, everywhere),
        put_inputs=put_inputs,
        get_state=copied,
    )


def _parallelize_with_pmap(train_step: TrainStep, resident: Resident | None, donate: tuple[int, ...]) -> Spmd:
    devices = jax.local_devices()
    rows = NamedSharding(Mesh(devices, (AXIS,)), PartitionSpec(AXIS))
    everywhere = NamedSharding(Mesh(jax.devices(), (AXIS,)), PartitionSpec())

    def put_rows(tree: Any) -> Any:
        def put(x: Any) -> jax.Array:
            value = np.asarray(x.addressable_data(0) if isinstance(x, jax.Array) else x)
            return jax.device_put(np.broadcast_to(value, (len(devices), *value.shape)), rows)

        return jax.tree.map(put, tree)

    def split_rows(batches: dict[str, np.ndarray]) -> Any:
        """Converts `[K, b, ...]` to `[devices, K, b / devices, ...]`."""

        def put(x: np.ndarray) -> jax.Array:
            k, b, *rest = x.shape
            return jax.device_put(x.reshape(k, len(devices), b // len(devices), *rest).swapaxes(0, 1), rows)

        return jax.tree.map(put, batches)

    def get_state(state: Any) -> TrainState:
        return _replicate(jax.tree.map(lambda x: np.array(x.addressable_data(0)[0]), state), everywhere)

    step = _pmap(train_step, resident, None, donate)
    images = None if resident is None else put_rows(resident.images)

    def step_and_first_metrics(state: Any, inputs: Any) -> tuple[Any, Metrics]:
        state, metrics = step(state, images, inputs)
        return state, jax.tree.map(lambda x: x.addressable_data(0)[0], metrics)

    return Spmd(step_and_first_metrics, put_rows, split_rows if resident is None else put_rows, get_state)


def parallelize(train_step: TrainStep, mode: str, *, resident: Resident | None = None, donate: bool = True) -> Spmd:
    """Runs a per-device training step on all devices of all processes.

    Args:
      train_step: the step that `make_train_step` returned.
      mode: `"shard_map"` or `"pmap"`.
      resident: images in device memory, from which each device crops its own share of a batch.
      donate: whether a step may reuse the memory of the state it is given.
    """
    modes = {"shard_map": _parallelize_with_shard_map, "pmap": _parallelize_with_pmap}
    return modes[mode](train_step, resident, (0,) if donate else ())


def abstract_step(
    train_step: TrainStep,
    mode: str,
    *,
    devices: Sequence[jax.Device],
    state: TrainState,
    inputs: Any,
    resident: Resident | None = None,
    donate: bool = True,
) -> tuple[Any, tuple[Any, Any, Any]]:
    """Returns the program of `parallelize` for devices that may not exist, and the arguments to lower it with.

    Args:
      train_step: the step that `make_train_step` returned.
      mode: `"shard_map"` or `"pmap"`.
      devices: the devices to compile for, such as those of a topology.
      state: the shapes and dtypes of a state.
      inputs: the shapes and dtypes of the inputs of K updates, those of all processes together: with `resident` an
        array `[K]`, otherwise a dict of uint8 `[K, B, h, w, 3]`.
      resident: images in device memory, given as shapes and dtypes.
      donate: whether a step may reuse the memory of the state it is given.

    Returns:
      A function with a method `lower`, and its arguments as `jax.ShapeDtypeStruct`.
    """
    images = None if resident is None else resident.images
    if mode == "pmap":
        count = len(devices)

        def row(x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((count, *x.shape), x.dtype)

        def split(x: Any) -> jax.ShapeDtypeStruct:
            k, b, *rest = x.shape
            return jax.ShapeDtypeStruct((count, k, b // count, *rest), x.dtype)

        turns = jax.tree.map(split if resident is None else row, inputs)
        return _pmap(train_step, resident, devices, (0,) if donate else ()), (
            *jax.tree.map(row, (state, images)),
            turns,
        )

    step, everywhere, shares = _shard_map(train_step, resident, devices, (0,) if donate else ())

    def placed(tree: Any, sharding: NamedSharding) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

    return step, (placed(state, everywhere), placed(images, everywhere), placed(inputs, shares))
