"""What the devices are fed: stacked batches cut on the host, or images that stay in device memory."""

import contextlib
import functools
import itertools
from collections.abc import Generator, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from a2f_jax.data import Cache, Patches, open_cache, open_pairs
from a2f_jax.data.device_patches import device_batch, device_images
from a2f_jax.training.spmd import Resident
from a2f_jax.training.validation import middle


def open_training_data(config: ConfigDict, scale: int) -> tuple[Patches, list[tuple[np.ndarray, np.ndarray]]]:
    """Opens a run's dataset, decoding it first where that has not been done yet.

    Args:
      config: the run's settings.
      scale: of the network.

    Returns:
      The sampler of training patches, and this process's share of the held-out images, LR and HR, as `middle` crops
      them.

    Raises:
      UserError: the dataset is not prepared, holds no images out, or has images smaller than a patch.
    """
    name, data_dir = config.data.name, config.data.dir or None
    primary, index, count = jax.process_index() == 0, jax.process_index(), jax.process_count()
    # Files that one machine writes and all share cannot be locked everywhere: the first process decodes alone.
    if not primary:
        multihost_utils.sync_global_devices("decoded")
    cache = open_cache(name, scale=scale, split="train", data_dir=data_dir)
    if primary:
        multihost_utils.sync_global_devices("decoded")
    held_out = open_pairs(name, scale=scale, split="validation", data_dir=data_dir)
    images = [middle(held_out[i], scale) for i in range(min(len(held_out), config.validation_images))[index::count]]
    patches = Patches(
        cache,
        seed=config.seed,
        batch_size=config.batch_size,
        patch_size=config.data.patch_size,
        process_index=index,
        process_count=count,
    )
    return patches, images


def dispatch_sizes(config: ConfigDict, start: int) -> Iterator[int]:
    """How many updates each dispatch does: none crosses a step at which something is due."""
    step = start
    while step < config.steps:
        ends = (config.log_every, config.checkpoint_every, config.validate_every)
        count = min(config.steps_per_dispatch, config.steps - step, *(every - step % every for every in ends))
        yield count
        step += count


def resident_images(config: ConfigDict, cache: Cache) -> Resident | None:
    """The training images for the devices' memory, where the config asks for it."""
    if config.data.placement == "host":
        return None
    cut = functools.partial(device_batch, scale=cache.scale, patch_size=config.data.patch_size)
    return Resident(
        device_images(cache),
        lambda images, step, rows: cut(images, seed=config.seed, step=step, rows=rows),
        config.batch_size,
    )


def dispatch_inputs(patches: Patches, resident: Resident | None, step: int, counts: list[int]) -> Generator[Any]:
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
