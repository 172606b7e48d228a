"""Inputs of the training step: batches cropped on the host, or images that stay in device memory."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from a2f_jax.data import Cache, Patches, open_cache, open_pairs
from a2f_jax.data.datasets import Pairs
from a2f_jax.data.degradations import Degradation, degrade, degrade_batch
from a2f_jax.data.device_patches import DeviceImages, device_batch, device_images
from a2f_jax.errors import UserError
from a2f_jax.evaluation.measurable import check_measurable
from a2f_jax.training.processes import failing_together
from a2f_jax.training.settings import degradation_of, naming_setting
from a2f_jax.training.spmd import Resident
from a2f_jax.training.step import Batch
from a2f_jax.training.validation import center_crop


def open_training_data(config: ConfigDict, scale: int) -> tuple[Patches, list[tuple[np.ndarray, np.ndarray]]]:
    """Opens the dataset of a run, and decodes it first if necessary.

    Args:
      config: the settings of the run.
      scale: the upscaling factor of the network.

    Returns:
      The sampler of training patches, and this process's share of the validation images as `(LR, HR)` arrays, cropped
      by `center_crop`. If the config has a degradation, each LR image is made of its HR image by a fixed one.

    Raises:
      UserError: the dataset is not prepared, has no validation images or one that is too small to be measured, or has
        an image smaller than a patch.
    """
    index, count = jax.process_index(), jax.process_count()
    degradation = degradation_of(config)
    # Locks do not work on every shared file system, so the first process prepares and decodes before the others start.
    with failing_together():
        if index == 0:
            held_out, cache = _open_splits(config, scale)
    with failing_together():
        if index != 0:
            held_out, cache = _open_splits(config, scale)
        chosen = range(min(len(held_out), config.validation_images))[index::count]
        check_measurable(f"the validation split of {config.data.name}", held_out, scale, chosen)
        images = []
        for pair in (held_out[i] for i in chosen):  # decoded one at a time
            images.append(center_crop(pair, scale))
        if degradation:
            images = [(_degraded(hr, degradation, scale, i), hr) for i, (_, hr) in zip(chosen, images, strict=True)]
        patches = Patches(
            cache,
            seed=config.seed,
            batch_size=config.batch_size,
            process_index=index,
            process_count=count,
            by_area=by_area(config),
            **_cropping(config),
        )
    return patches, images


def _degraded(hr: np.ndarray, degradation: Degradation, scale: int, index: int) -> np.ndarray:
    # Not the seed of the run, so that runs can be compared.
    key = jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), index)
    return np.asarray(jax.jit(degrade, static_argnums=3)(hr, key, degradation, scale))


def degrading(config: ConfigDict, scale: int) -> Callable[[Batch], Batch] | None:
    """Returns the function that makes training pairs of what the step gets, or None if it gets pairs.

    Args:
      config: the settings of the run.
      scale: the upscaling factor of the network.
    """
    degradation = degradation_of(config)
    if degradation is None:
        return None
    return functools.partial(degrade_batch, degradation=degradation, scale=scale, patch_size=config.data.patch_size)


def batch_shapes(config: ConfigDict, scale: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Returns shape, without the batch dimension, and dtype of each array that the host gives to a step.

    Args:
      config: the settings of the run.
      scale: the upscaling factor of the network.
    """
    degradation, side = degradation_of(config), config.data.patch_size
    if degradation is None:
        return {key: ((factor * side, factor * side, 3), np.uint8) for key, factor in (("lr", 1), ("hr", scale))}
    side = scale * degradation.source_size(side)
    return {"hr": ((side, side, 3), np.uint8), "key": ((2,), np.uint32)}


def _open_splits(config: ConfigDict, scale: int) -> tuple[Pairs, Cache]:
    name, data_dir = config.data.name, config.data.dir or None
    # Before the training images are decoded, because this fails if there are no validation images.
    with naming_setting("data.dir"):
        held_out = open_pairs(name, scale=scale, split="validation", data_dir=data_dir)
    return held_out, open_cache(name, scale=scale, split="train", data_dir=data_dir)


def dispatch_sizes(config: ConfigDict, start: int) -> Iterator[int]:
    """Yields the number of updates in each dispatch, so that logging, validation and saving fall between dispatches."""
    step = start
    while step < config.steps:
        ends = (config.log_every, config.checkpoint_every, config.validate_every)
        count = min(config.steps_per_dispatch, config.steps - step, *(every - step % every for every in ends))
        yield count
        step += count


def by_area(config: ConfigDict) -> bool:
    """Returns whether a run chooses every patch of every image equally often, instead of every image."""
    return config.data.get("sampling", "image") == "area"


def resident_images(config: ConfigDict, cache: Cache) -> Resident | None:
    """Returns the training images to place in device memory, or None if the host crops the patches."""
    if config.data.placement == "host":
        return None
    return resident_images_of(config, cache.scale, device_images_of(config, cache))


def device_images_of(config: ConfigDict, cache: Cache) -> DeviceImages:
    """Returns the training images of a run for `jax.device_put`; they are still in host memory."""
    cropping = _cropping(config)
    crop_size = cropping["source_size"] or cropping["patch_size"]
    return device_images(cache, crop_size=crop_size, by_area=by_area(config))


def _cropping(config: ConfigDict) -> dict[str, Any]:
    """Returns the arguments that `Patches` and `device_batch` share."""
    degradation, size = degradation_of(config), config.data.patch_size
    return {
        "patch_size": size,
        "source_size": degradation.source_size(size) if degradation else None,
        "permute_channels": bool(config.data.get("permute_channels")),
    }


def resident_images_of(config: ConfigDict, scale: int, images: DeviceImages) -> Resident:
    """Returns images to place in device memory, with the function that crops the patches of a run."""
    options = {"seed": config.seed, "scale": scale, **_cropping(config)}
    return Resident(
        images, lambda images, step, rows: device_batch(images, step=step, rows=rows, **options), config.batch_size
    )


def dispatch_inputs(patches: Patches, resident: Resident | None, step: int, counts: Iterable[int]) -> Generator[Any]:
    """Yields the inputs of each dispatch: stacked batches, or just a range if the devices crop the patches."""
    if resident is not None:
        yield from map(np.arange, counts)
        return
    with contextlib.closing(patches.prefetch(step)) as batches:
        for count in counts:
            try:
                taken = list(itertools.islice(batches, count))
                if count == 1:
                    stacked = {key: value[None] for key, value in taken[0].items()}  # avoids a copy
                else:
                    stacked = {key: np.stack([batch[key] for batch in taken]) for key in taken[0]}
            except MemoryError as error:
                raise UserError(
                    f"{count} × {len(patches.rows)} patches do not fit in memory: reduce config.batch_size, "
                    "config.data.patch_size or config.steps_per_dispatch"
                ) from error
            yield stacked
