"""What a run's training step costs on devices that need not exist: compiles the very program that `train` would run."""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from a2f_jax.data.cache import CHUNK, cache_without_pixels, row_chunks
from a2f_jax.data.device_patches import DeviceImages
from a2f_jax.hardware import (
    OutOfMemory,
    ProgramCosts,
    Target,
    compile_costs,
    compile_only_devices,
)
from a2f_jax.models.counts import multiply_adds
from a2f_jax.training.inputs import (
    batch_shapes,
    by_area,
    degrading,
    device_images_of,
    dispatch_sizes,
    resident_images_of,
)
from a2f_jax.training.losses import LOSSES
from a2f_jax.training.optimizer import make_optimizer
from a2f_jax.training.settings import check, make_network
from a2f_jax.training.spmd import abstract_step
from a2f_jax.training.state import TrainState, init_state
from a2f_jax.training.step import make_train_step

_DIV2K = 800, 1404, 2040
"""Number of training images of DIV2K, and the usual height and width of one in pixels."""


@dataclasses.dataclass(frozen=True)
class StepCosts:
    """What the training step of a config costs on each device of a target.

    Attributes:
      target: the devices that the step was compiled for.
      batch_size: the global batch size.
      updates: the number of updates in the compiled program, `config.steps_per_dispatch` or fewer.
      parameters: size of the parameters, in bytes.
      ema: size of their moving average, in bytes.
      optimizer: size of the optimizer state, in bytes.
      images: size of the training images in device memory, in bytes; 0 if the host crops the patches.
      flops: floating-point operations of the convolutions and matrix products of one update on one device, including
        what rematerialization repeats.
      program: the costs of the program.
      assumed_images: whether `images` is an assumption, the size of DIV2K, because the dataset is not prepared on this
        machine.
    """

    target: Target
    batch_size: int
    updates: int
    parameters: int
    ema: int
    optimizer: int
    images: int
    flops: int
    program: ProgramCosts
    assumed_images: bool


def with_even_batch(config: ConfigDict, device_count: int) -> ConfigDict:
    """Returns the config with the smallest batch size that can be split evenly, at least that of the config."""
    parts = device_count * config.accumulate
    changed = copy.deepcopy(config)
    changed.batch_size = -(-config.batch_size // parts) * parts
    return changed


def step_costs(config: ConfigDict, target: Target) -> StepCosts:
    """Compiles the training step of a run for some devices. No pixels are read, and no array is allocated.

    Args:
      config: the settings of the run, with the structure of `configs/a2f.py`.
      target: the devices.

    Raises:
      OutOfMemory: the compiler has refused the step because of its memory.
      UserError: a setting is invalid, or the compiler for these devices is not installed.
    """
    devices = compile_only_devices(target)
    check(config, len(devices))
    network = make_network(config, target.accelerator.platform, len(devices))
    optimizer = make_optimizer(config)
    train_step = make_train_step(
        network,
        optimizer,
        loss=LOSSES[config.loss],
        ema_decay=config.ema_decay,
        accumulate=config.accumulate,
        freeze=config.optimizer.freeze,
        degrade=degrading(config, network.scale),
    )
    state: TrainState = jax.eval_shape(lambda: init_state(network, optimizer, config.seed, ema=config.ema_decay > 0))
    updates = next(dispatch_sizes(config, 0))
    images, assumed = (None, False) if config.data.placement == "host" else _images(config, network.scale)
    if images is None:
        inputs: Any = {
            key: jax.ShapeDtypeStruct((updates, config.batch_size, *shape), dtype)
            for key, (shape, dtype) in batch_shapes(config, network.scale).items()
        }
        resident = None
    else:
        inputs = jax.ShapeDtypeStruct((updates,), jnp.int32)
        resident = resident_images_of(config, network.scale, images)
    step, arguments = abstract_step(
        train_step,
        config.spmd,
        devices=devices,
        state=state,
        inputs=inputs,
        resident=resident,
        donate=not config.checks,
    )
    traced = jax.make_jaxpr(step)(*arguments)
    return StepCosts(
        target=target,
        batch_size=config.batch_size,
        updates=updates,
        parameters=_bytes(state.params),
        ema=_bytes(state.ema),
        optimizer=_bytes(state.opt_state),
        images=_bytes(images),
        flops=2 * multiply_adds(traced.jaxpr) // updates,
        program=compile_costs(step, *arguments),
        assumed_images=assumed,
    )


def _bytes(tree: Any) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _images(config: ConfigDict, scale: int) -> tuple[DeviceImages, bool]:
    """Returns shapes and dtypes of the training images, and whether they are assumed."""
    cache = cache_without_pixels(config.data.name, scale=scale, data_dir=config.data.dir or None)
    if cache is None:
        count, height, width = _DIV2K

        def chunks(factor: int) -> jax.ShapeDtypeStruct:
            rows = height // scale * factor
            return jax.ShapeDtypeStruct((count * rows * row_chunks(width // scale * factor), CHUNK), jnp.uint8)

        start = jax.ShapeDtypeStruct((count,), jnp.int32)
        sizes = jax.ShapeDtypeStruct((count, 2), jnp.int32)
        shares = jax.ShapeDtypeStruct((count,), jnp.uint32) if by_area(config) else None
        return DeviceImages(sizes, chunks(1), chunks(scale), start, start, shares), True
    images = device_images_of(config, cache)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), images), False


def ways_to_fit(config: ConfigDict, target: Target, trying: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Yields changes of a config, each of which makes its training step fit into the memory of the devices.

    Each is found by compiling the step: rematerialization, bfloat16, the smallest sufficient accumulation, and the
    largest sufficient batch size; or, if none of these is enough, all of them together.

    Args:
      config: a config whose step does not fit.
      target: the devices.
      trying: called with a description of each attempt, such as `"model.remat=True"`.

    Yields:
      Settings by dotted name.
    """

    def fits(changes: dict[str, Any]) -> bool:
        trying(describe(changes))
        try:
            changed = copy.deepcopy(config)
            changed.update_from_flattened_dict(changes)
            return step_costs(changed, target).program.fits(target.accelerator)
        except OutOfMemory:
            return False

    share = config.batch_size // target.device_count // config.accumulate
    parts = [part for part in range(2, share + 1) if share % part == 0]
    candidates: list[list[dict[str, Any]]] = [
        [{"model.remat": True}] if config.model.get("remat") is False else [],
        [{"model.dtype": "bfloat16"}] if config.model.dtype == "float32" else [],
        [{"accumulate": config.accumulate * part} for part in parts],
        [{"batch_size": config.batch_size // part} for part in parts],
    ]
    found = False
    for ordered in candidates:
        for changes in ordered:
            if fits(changes):
                found = True
                yield changes
                break
    if not found:
        together = {name: value for ordered in candidates[:3] if ordered for name, value in ordered[-1].items()}
        if together and fits(together):
            yield together


def describe(changes: dict[str, Any]) -> str:
    """Returns changes of a config as options of the command line, such as `"--config.model.remat=True"`."""
    return " ".join(f"--config.{name}={value}" for name, value in changes.items())
