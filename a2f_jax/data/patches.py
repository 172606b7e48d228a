"""Training patches: which ones a step sees is a pure function of seed and step.

There is no iterator state to save: a run that goes on at step t sees what an uninterrupted one would have seen.
The numbers come from a counter-based hash in uint32 arithmetic, the same in NumPy and in a jitted JAX function.
"""

import itertools
import queue
import threading
from collections.abc import Generator
from typing import Any

import numpy as np

from a2f_jax.data.cache import Cache
from a2f_jax.errors import UserError

HostBatch = dict[str, np.ndarray]

_GOLDEN = 0x9E3779B9

# Batches that are cut before they are asked for.
_AHEAD = 8


def _mix(x: Any) -> Any:
    """A bijection of uint32 that scatters similar numbers (the "lowbias32" constants of Chris Wellons, 2018)."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def random_bits(seed: Any, step: Any, row: Any, draw: int) -> Any:
    """Hashes a place in the stream of random numbers.

    Args:
      seed: uint32, NumPy's or JAX's, as all others; arrays broadcast.
      step: uint32, of training.
      row: uint32, the patch's place in the whole batch.
      draw: which number of this patch.

    Returns:
      uint32, uniform.
    """
    x = _mix(seed ^ np.uint32(_GOLDEN))
    x = _mix(x + step)
    return _mix(x + row * np.uint32(_GOLDEN) + np.uint32(draw))


def choose(seed: Any, step: Any, rows: Any, sizes: Any, patch_size: int) -> tuple[Any, Any, Any, Any]:
    """Chooses image, corner and orientation of patches: every image, and every corner in it, equally likely.

    Args:
      seed: uint32 scalar array.
      step: uint32 scalar array.
      rows: uint32 `[B]`, the patches' places in the whole batch.
      sizes: int32 `[images, 2]`, LR height and width.
      patch_size: side of the LR patch.

    Returns:
      Image, top and left in LR pixels, and orientation 0..7 (bit 0: flip left–right, bit 1: flip top–bottom, bit 2:
      then transpose), each int32 `[B]`.
    """
    # The remainder favours small numbers by at most images / 2³².
    image = (random_bits(seed, step, rows, 0) % np.uint32(len(sizes))).astype(np.int32)
    room = (sizes[image] - patch_size + 1).astype(np.uint32)
    top = (random_bits(seed, step, rows, 1) % room[:, 0]).astype(np.int32)
    left = (random_bits(seed, step, rows, 2) % room[:, 1]).astype(np.int32)
    orientation = (random_bits(seed, step, rows, 3) >> 29).astype(np.int32)
    return image, top, left, orientation


def _orient(target: np.ndarray, patch: np.ndarray, orientation: int) -> None:
    """Writes a patch as `choose` wants it turned."""
    if orientation & 2:
        patch = patch[::-1]
    if not orientation & 0b101:
        target[:] = patch  # whole rows, which is quick
        return
    # First out of the image, whose rows lie pages apart; then byte by byte, which NumPy copies faster than triples.
    patch = np.ascontiguousarray(patch)
    if orientation & 1:
        patch = patch[:, ::-1]
    if orientation & 4:
        patch = patch.swapaxes(0, 1)
    for channel in range(3):
        target[..., channel] = patch[..., channel]


class Patches:
    """Cuts the batches of training from a cache, on the host.

    Args:
      cache: the decoded images.
      seed: of the choice of patches.
      batch_size: over all processes; each cuts its share.
      patch_size: side of the LR patch in pixels.
      process_index: which of the processes this is.
      process_count: how many there are.

    Attributes:
      rows: uint32 `[b]`, which places of the whole batch are this process's.

    Raises:
      UserError: the batch cannot be shared out evenly, or an image is smaller than a patch.
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
    ):
        smallest = int(np.argmin(cache.sizes.min(axis=1)))
        if cache.sizes[smallest].min() < patch_size:
            height, width = cache.sizes[smallest]
            raise UserError(
                f"config.data.patch_size={patch_size} is more than the {width}×{height} LR pixels of image "
                f"{cache.names[smallest]}: choose at most {min(height, width)}, or leave the image out"
            )
        if batch_size % process_count:
            raise UserError(
                f"config.batch_size={batch_size} cannot be shared out among {process_count} processes: "
                f"choose a multiple of {process_count}"
            )
        self.cache, self.patch_size = cache, patch_size
        self._images = [cache.images(i) for i in range(len(cache.names))]
        self._seed = np.uint32(seed % 2**32)
        share = batch_size // process_count
        self.rows = np.arange(process_index * share, (process_index + 1) * share, dtype=np.uint32)

    def choice(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What `choose` gives for this process at a step."""
        with np.errstate(over="ignore"):  # uint32 is meant to wrap around
            return choose(self._seed, np.uint32(step), self.rows, self.cache.sizes, self.patch_size)

    def batch(self, step: int) -> HostBatch:
        """Cuts this process's share of a step's batch: `{"lr": uint8 [b, p, p, 3], "hr": uint8 [b, s·p, s·p, 3]}`."""
        p, s = self.patch_size, self.cache.scale
        b = len(self.rows)
        batch = {"lr": np.empty((b, p, p, 3), np.uint8), "hr": np.empty((b, s * p, s * p, 3), np.uint8)}
        for i, (image, top, left, orientation) in enumerate(zip(*self.choice(step), strict=True)):
            lr, hr = self._images[image]
            _orient(batch["lr"][i], lr[top : top + p, left : left + p], orientation)
            _orient(batch["hr"][i], hr[top * s : (top + p) * s, left * s : (left + p) * s], orientation)
        return batch

    def prefetch(self, start: int) -> Generator[HostBatch, None, None]:
        """Yields the batches from a step on, while a thread cuts the next ones; closing the iterator ends it."""
        # One thread, since a second would mostly fight it for the interpreter's lock, and the plainest of queues: what
        # it costs to hand over a batch is time that the devices wait.
        steps: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        ready: queue.SimpleQueue[HostBatch | BaseException] = queue.SimpleQueue()

        def work() -> None:
            while (step := steps.get()) is not None:
                try:
                    ready.put(self.batch(step))
                except BaseException as error:  # handed over to the consumer
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
