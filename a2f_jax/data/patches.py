"""Training patches, chosen by a pure function of the seed and the step.

There is no iterator state to save: a run resumed at step t sees the same batches as an uninterrupted run. Random
numbers come from a counter-based hash in uint32 arithmetic, which gives the same values in NumPy and in a jitted JAX
function.
"""

import itertools
import operator
import queue
import threading
from collections.abc import Generator
from typing import Any

import numpy as np

from a2f_jax.data.cache import Cache
from a2f_jax.errors import UserError

HostBatch = dict[str, np.ndarray]

_GOLDEN = 0x9E3779B9

# The number of batches that are cropped ahead of the consumer.
_AHEAD = 8


def _mix(x: Any) -> Any:
    # A bijection on uint32 with good avalanche: "lowbias32" by Chris Wellons (2018).
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def random_bits(seed: Any, step: Any, row: Any, draw: Any) -> Any:
    """Returns uniform random bits for a position in the training stream.

    Arguments may be NumPy or JAX values; arrays are broadcast.

    Args:
      seed: uint32, the seed.
      step: uint32, the training step.
      row: uint32, the position of the patch in the global batch.
      draw: the index of the random number among those drawn for one patch, an int or an array of them.

    Returns:
      uint32, uniform on 0..2³²−1.
    """
    x = _mix(seed ^ np.uint32(_GOLDEN))
    x = _mix(x + step)
    return _mix(x + row * np.uint32(_GOLDEN) + np.uint32(draw))


def cumulative_shares(sizes: np.ndarray, patch_size: int) -> np.ndarray:
    """Returns how likely each image is if all patches of all images are equally likely, for `choose`.

    Args:
      sizes: int32 `[images, 2]`, LR height and width in pixels, at least `patch_size`.
      patch_size: the side of the LR patches, in pixels.

    Returns:
      uint32 `[images]`, ascending: random bits that are at most this value choose the image or one before it.
    """
    patches = np.cumsum(np.prod(sizes.astype(np.int64) - patch_size + 1, axis=1))
    return np.floor(patches / patches[-1] * 2**32 - 1).clip(0).astype(np.uint32)


def choose(
    seed: Any, step: Any, rows: Any, sizes: Any, patch_size: int, shares: Any = None
) -> tuple[Any, Any, Any, Any]:
    """Chooses the image, the corner and the orientation of each patch at random.

    Every corner within an image is equally likely. So is every image, regardless of its size, unless there are shares.

    Args:
      seed: uint32 scalar.
      step: uint32 scalar, the training step.
      rows: uint32 `[B]`, the positions of the patches in the global batch.
      sizes: int32 `[images, 2]`, LR height and width in pixels.
      patch_size: the side of the LR patches, in pixels.
      shares: uint32 `[images]`, how likely each image is, as `cumulative_shares` returns it.

    Returns:
      Four int32 `[B]` arrays: the image index, the top and the left edge in LR pixels, and the orientation 0..7 (bit 0:
      flip left–right, bit 1: flip top–bottom, bit 2: transpose after flipping).
    """
    bits = random_bits(seed, step, rows, 0)
    if shares is None:
        image = (bits % np.uint32(len(sizes))).astype(np.int32)  # the modulo bias is at most images / 2³²
    else:
        image = shares.searchsorted(bits).astype(np.int32)
    room = (sizes[image] - patch_size + 1).astype(np.uint32)
    top = (random_bits(seed, step, rows, 1) % room[:, 0]).astype(np.int32)
    left = (random_bits(seed, step, rows, 2) % room[:, 1]).astype(np.int32)
    orientation = (random_bits(seed, step, rows, 3) >> 29).astype(np.int32)
    return image, top, left, orientation


PERMUTATIONS = np.array([*itertools.permutations(range(3))], np.int32)
"""int32 `[6, 3]`, the orders of the color channels; the first is RGB."""


def choose_permutations(seed: Any, step: Any, rows: Any) -> Any:
    """Chooses the order of the color channels of each patch, uniformly at random.

    Args:
      seed: uint32 scalar.
      step: uint32 scalar, the training step.
      rows: uint32 `[B]`, the positions of the patches in the global batch.

    Returns:
      int32 `[B]`, indices in `PERMUTATIONS`.
    """
    return (random_bits(seed, step, rows, 6) % np.uint32(6)).astype(np.int32)


def degradation_keys(seed: Any, step: Any, rows: Any) -> Any:
    """Returns the keys of the degradations of the patches, for `jax.random.wrap_key_data`.

    Args:
      seed: uint32 scalar.
      step: uint32 scalar, the training step.
      rows: uint32 `[B]`, the positions of the patches in the global batch.

    Returns:
      uint32 `[B, 2]`.
    """
    return random_bits(seed, step, rows[:, None], np.array([[4, 5]]))


def _orient(target: np.ndarray, patch: np.ndarray, orientation: int) -> None:
    if orientation & 2:
        patch = patch[::-1]
    if not orientation & 0b101:
        target[:] = patch  # whole rows at once, which is fast
        return
    # Copy the patch out of the image first, whose rows are pages apart in memory; then copy channel by channel, which
    # NumPy does faster than copying strided triples.
    patch = np.ascontiguousarray(patch)
    if orientation & 1:
        patch = patch[:, ::-1]
    if orientation & 4:
        patch = patch.swapaxes(0, 1)
    for channel in range(3):
        target[..., channel] = patch[..., channel]


class Patches:
    """Crops training batches from a cache, on the host.

    Args:
      cache: the decoded images.
      seed: the seed for the choice of patches.
      batch_size: the global batch size; each process crops an equal share of it.
      patch_size: the side of the LR patches, in pixels.
      process_index: the index of this process.
      process_count: the number of processes.
      source_size: the side of the area to crop for the degradation of each patch, in LR pixels. If it is given, batches
        have such areas of the HR images and keys instead of pairs, for `degrade_batch`.
      by_area: whether every patch of every image is equally likely, instead of every image.
      permute_channels: whether to permute the color channels at random, the same in LR and HR.

    Attributes:
      cache: the decoded images.
      crop_size: the side of the area that is cropped, in LR pixels: that of a patch, or `source_size`.
      rows: uint32 `[b]`, the positions in the global batch that this process crops.

    Raises:
      TypeError: the seed is not an integer.
      UserError: the batch size is not a multiple of the number of processes, or an image is smaller than a patch.
      ValueError: a size or the number of processes is not positive, or `process_index` is not that of a process.
    """

    def __init__(
        self,
        cache: Cache,
        *,
        seed: int,
        batch_size: int,
        patch_size: int,
        process_index: int = 0,
        process_count: int = 1,
        source_size: int | None = None,
        by_area: bool = False,
        permute_channels: bool = False,
    ):
        least = {"batch_size": batch_size, "patch_size": patch_size, "process_count": process_count}
        if wrong := [f"{name} is {value}" for name, value in least.items() if value < 1]:
            raise ValueError(f"{wrong[0]}, but must be positive")
        if not 0 <= process_index < process_count:
            raise ValueError(f"process_index is {process_index}, but there are {process_count} processes, from 0 on")
        smallest = int(np.argmin(cache.sizes.min(axis=1)))
        height, width = cache.sizes[smallest]
        if source_size and min(height, width) < source_size:
            raise UserError(
                f"patch_size={patch_size} requires {source_size}×{source_size} LR pixels to degrade, but the smallest "
                f"image, {cache.names[smallest]}, has {width}×{height}: use smaller patches or less blur, or remove "
                "the image from the dataset"
            )
        if min(height, width) < patch_size:
            raise UserError(
                f"patch_size={patch_size} is larger than the smallest LR image, {cache.names[smallest]} "
                f"with {width}×{height} pixels: use at most {min(height, width)}, or remove the image from the dataset"
            )
        if batch_size % process_count:
            raise UserError(
                f"batch_size={batch_size} cannot be divided evenly among {process_count} processes: "
                f"use a multiple of {process_count}"
            )
        self.cache, self.crop_size, self._degraded = cache, source_size or patch_size, source_size is not None
        self._images = [cache.pair(i) for i in range(len(cache.names))]
        self._shares = cumulative_shares(cache.sizes, self.crop_size) if by_area else None
        self._permuted = permute_channels
        self._seed = np.uint32(operator.index(seed) % 2**32)
        share = batch_size // process_count
        self.rows = np.arange(process_index * share, (process_index + 1) * share, dtype=np.uint32)

    def choice(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Returns image, top, left and orientation of this process's patches at a step, as described at `choose`."""
        with np.errstate(over="ignore"):  # uint32 overflow is intended
            return choose(self._seed, np.uint32(step), self.rows, self.cache.sizes, self.crop_size, self._shares)

    def batch(self, step: int) -> HostBatch:
        """Crops this process's share of the batch at a step.

        Args:
          step: the training step.

        Returns:
          `{"lr": uint8 [b, p, p, 3], "hr": uint8 [b, s·p, s·p, 3]}`, where p is the patch size and s the scale; or with
          `source_size` S `{"hr": uint8 [b, s·S, s·S, 3], "key": uint32 [b, 2]}`.
        """
        p, s = self.crop_size, self.cache.scale
        b = len(self.rows)
        batch = {"hr": np.empty((b, s * p, s * p, 3), np.uint8)}
        if self._degraded:
            with np.errstate(over="ignore"):
                batch["key"] = degradation_keys(self._seed, np.uint32(step), self.rows)
        else:
            batch["lr"] = np.empty((b, p, p, 3), np.uint8)
        for i, (image, top, left, orientation) in enumerate(zip(*self.choice(step), strict=True)):
            lr, hr = self._images[image]
            if not self._degraded:
                _orient(batch["lr"][i], lr[top : top + p, left : left + p], orientation)
            _orient(batch["hr"][i], hr[top * s : (top + p) * s, left * s : (left + p) * s], orientation)
        if self._permuted:
            with np.errstate(over="ignore"):
                permutations = PERMUTATIONS[choose_permutations(self._seed, np.uint32(step), self.rows)]
            for images in (batch[key] for key in ("lr", "hr") if key in batch):
                for patch, permutation in zip(images, permutations, strict=True):
                    patch[:] = patch[..., permutation]
        return batch

    def prefetch(self, start: int) -> Generator[HostBatch, None, None]:
        """Yields the batches from step `start` on while a thread crops the next ones.

        Closing the generator stops the thread.
        """
        # A single thread, because a second one would mostly contend for the GIL, and the simplest kind of queue,
        # because the devices wait while a batch is handed over.
        steps: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        ready: queue.SimpleQueue[HostBatch | BaseException] = queue.SimpleQueue()

        def work() -> None:
            while (step := steps.get()) is not None:
                try:
                    ready.put(self.batch(step))
                except BaseException as error:  # raised in the consumer
                    ready.put(error)

        for step in range(start, start + _AHEAD):
            steps.put(step)
        thread = threading.Thread(target=work, name="patches", daemon=True)
        thread.start()
        try:
            for step in itertools.count(start + _AHEAD):
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                steps.put(step)
                yield item
        finally:
            steps.put(None)
            thread.join()
