"""Exact tiling of A2F: applies the network to one image, block by block and, within each block, tile by tile.

A2F's channel attention averages over the whole image, so tiles cannot be upscaled independently. Instead, every block
processes all tiles before the next block starts, and the states are stored in device memory, host memory or a file.
The result equals that of the whole image up to float32 rounding.

On an accelerator that holds the states, programs are queued without waiting for their results, so that the device need
not wait for the host; the means stay on the device. Otherwise, threads compute several tiles at the same time.
"""

import collections
import concurrent.futures
import functools
import itertools
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from a2f_jax.errors import UserError
from a2f_jax.upscaling.plan import Plan, workers
from a2f_jax.upscaling.programs import STATES_AT_ONCE, TILES_AT_ONCE, Frame, Programs
from a2f_jax.upscaling.states import DeviceStates, HostStates, States, Tile

Progress = Callable[[int], object]
"""Called with the number of tile programs that have run since the previous call. `tile_count` returns the total."""


def _reflected(start: int, count: int, size: int) -> np.ndarray:
    # Mirrored at the outer edge of the border pixels, not at their centers: the result would be mirrored there as well,
    # and the outer half of each border pixel would repeat the inner half.
    positions = np.arange(start, start + count) % (2 * size)
    return np.minimum(positions, 2 * size - 1 - positions)


def _part(image: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    rows, columns = _reflected(top, height, image.shape[0]), _reflected(left, width, image.shape[1])
    return image[rows[:, None], columns]


def cut(image: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Returns part of an image, which is reflected beyond its border, as float32 `[height, width, 3]` in 0..255."""
    pixels = _part(image, top, left, height, width).astype(np.float32)
    if image.dtype == np.uint16:
        pixels /= 257
    return pixels


def require_finite(finite: Any) -> None:
    """Raises `UserError` unless the result of the network is finite.

    Args:
      finite: whether it is: a Boolean, or an array `[]` of one.
    """
    if not finite:
        raise UserError(
            "the result of the network is not finite (NaN or infinity), most likely because the weights are damaged or "
            "come from a training run that diverged: use other weights"
        )


_QUEUED = 4
"""Tiles whose programs are queued on an accelerator before the first of them is waited for."""


class _HostMeans:
    # The means of the states over the image, in float64 on the host.

    def __init__(self, programs: Programs, pixels: int):
        self._programs, self._pixels = programs, pixels
        self._means: list[np.ndarray] = []

    def add(self, sums: Iterable[jax.Array]) -> None:
        total = np.sum([np.asarray(s, np.float64) for s in sums], 0)
        require_finite(np.isfinite(total).all())
        self._means.append(total / self._pixels)

    def weights(self, index: int) -> jax.Array:
        return self._programs.mix_weights(index, self._means)


class _DeviceMeans:
    # The same in float32 on the device, so that the host does not wait for them between blocks.

    def __init__(self, programs: Programs, pixels: int):
        self._programs = programs
        self._pixels = jax.device_put(np.float32(pixels), programs.device)
        self._zero = jax.device_put(np.zeros(programs.network.features, np.float32), programs.device)
        self._sums: list[jax.Array] = []

    def add(self, sums: Iterable[jax.Array]) -> None:
        parts = list(sums)
        while len(parts) > 1:
            groups = [parts[i : i + TILES_AT_ONCE] for i in range(0, len(parts), TILES_AT_ONCE)]
            parts = [self._programs.total([*group, *[self._zero] * (TILES_AT_ONCE - len(group))]) for group in groups]
        if self._sums:  # those of the block before, so that the device has work while the host waits
            require_finite(np.isfinite(self._sums[-1]).all())
        self._sums += parts

    def weights(self, index: int) -> jax.Array:
        padding = [self._zero] * (-len(self._sums) % STATES_AT_ONCE)
        return self._programs.mix_weights_on_device[index]([*self._sums, *padding], self._pixels)


def _ahead(results: Iterable[Any], count: int) -> Iterator[Any]:
    # Starts up to `count` computations before the result of the first of them is waited for, which bounds the memory of
    # what is queued and keeps the progress bar true.
    queued: collections.deque[Any] = collections.deque()
    for result in results:
        queued.append(result)
        if len(queued) > count:
            yield jax.block_until_ready(queued.popleft())
    yield from queued


def _whole(programs: Programs, image: np.ndarray, size: tuple[int, int], depth: str, margin: int) -> np.ndarray:
    height, width = image.shape[0] + 2 * margin, image.shape[1] + 2 * margin
    canvas = np.zeros((*size, 3), image.dtype)
    canvas[:height, :width] = _part(image, -margin, -margin, height, width) if margin else image
    frame = np.array([0, 0, height, width], np.int32)
    sr, finite = jax.device_get(programs.whole[depth](*jax.device_put((canvas, frame), programs.device)))
    require_finite(finite)
    top, bottom, right = (programs.network.scale * x for x in (margin, height - margin, width - margin))
    return sr[top:bottom, top:right]


def strips(
    programs: Programs,
    image: np.ndarray,
    plan: Plan,
    depth: str = "float32",
    progress: Progress = lambda _: None,
    margin: int = 0,
    ahead: bool | None = None,
) -> Iterator[np.ndarray]:
    """Upscales an image of any size and yields the result in horizontal strips.

    Args:
      programs: the tile programs of the network.
      image: `[H, W, 3]`, uint8 or float32 in 0..255, or uint16 in 0..65535.
      plan: tile size and storage of the states.
      depth: dtype of the result. `"uint8"` and `"uint16"` are rounded and use their full range; `"float32"` is on
        0..255 and neither clipped nor rounded.
      progress: called with the number of tile programs that have run since the previous call.
      margin: pixels by which the image is reflected at each border before it is upscaled. They are cut off from the
        result.
      ahead: whether to start programs without waiting for earlier ones. By default, on an accelerator whose memory
        holds the states.

    Yields:
      Strips `[h, scale · W, 3]` from top to bottom.

    Raises:
      UserError: the result is not finite.
    """
    if plan.canvas:
        whole = _whole(programs, image, plan.canvas, depth, margin)
        progress(1)
        yield whole
        return
    height, width = image.shape[0] + 2 * margin, image.shape[1] + 2 * margin
    network, side = programs.network, plan.side
    grid = -(-height // side), -(-width // side)
    tiles = [(row, column) for row in range(grid[0]) for column in range(grid[1])]
    zero = jax.device_put(np.zeros((side, side, network.features), network.dtype), programs.device)
    states: States
    if plan.place == "device":
        states = DeviceStates(programs, zero)
    else:
        folder = None if plan.place == "host" else plan.folder or pathlib.Path(tempfile.gettempdir())
        states = HostStates(network.blocks + 1, grid, np.asarray(zero), folder)

    if ahead is None:
        ahead = programs.device.platform != "cpu" and plan.place == "device"
    means = (_DeviceMeans if ahead else _HostMeans)(programs, height * width)

    @functools.cache  # every block needs it again
    def frame(tile: Tile) -> Frame:
        values = np.array([tile[0] * side, tile[1] * side, height, width], np.int32)
        return jax.device_put(values, programs.device) if ahead else values

    def pixels(tile: Tile) -> np.ndarray:
        # The programs mask what lies beyond the border of the image and its margin, so any value would do there.
        top, left = (index * side - programs.halo - margin for index in tile)
        around = side + 2 * programs.halo
        return cut(image, top, left, around, around)

    def head(tile: Tile) -> jax.Array:
        return store(0, tile, programs.head(pixels(tile), frame(tile)))

    def block(index: int, weights: jax.Array, tile: Tile) -> jax.Array:
        residual = programs.residual[index](states.padded(index, tile), frame(tile))
        inputs = [states.get(j, tile) for j in range(index + 1)]
        inputs += [zero] * (-len(inputs) % STATES_AT_ONCE)
        return store(index + 1, tile, programs.mix(weights, residual, inputs, frame(tile)))

    def store(index: int, tile: Tile, result: tuple[jax.Array, jax.Array]) -> jax.Array:
        states.put(index, tile, result[0])
        progress(1)
        return result[1]

    def tail(tile: Tile) -> tuple[jax.Array, jax.Array]:
        return programs.tail[depth](states.padded(network.blocks, tile), pixels(tile), frame(tile))

    def fetch(result: tuple[jax.Array, jax.Array]) -> np.ndarray:
        sr, finite = result
        require_finite(finite)
        progress(1)
        return np.asarray(sr)

    with concurrent.futures.ThreadPoolExecutor(plan.workers or workers(programs.device.platform)) as pool:

        def run(compute: Callable[[Tile], Any], tiles: Iterable[Tile]) -> Iterator[Any]:
            return _ahead(map(compute, tiles), _QUEUED) if ahead else pool.map(compute, tiles)

        means.add(run(head, tiles))
        for index in range(network.blocks):
            weights = means.weights(index)
            means.add(run(functools.partial(block, index, weights), tiles))
        scale = network.scale
        queued = map(fetch, _ahead(map(tail, tiles), 1))  # one after another, when they are asked for
        for row in range(grid[0]):
            in_row = [(row, column) for column in range(grid[1])]
            results = itertools.islice(queued, grid[1]) if ahead else pool.map(lambda tile: fetch(tail(tile)), in_row)
            strip = np.concatenate(list(results), 1)
            top = max(margin - row * side, 0)
            bottom = min(height - margin - row * side, side)
            if top < bottom:
                yield strip[scale * top : scale * bottom, scale * margin : scale * (width - margin)]


def tile_count(programs: Programs, height: int, width: int, plan: Plan) -> int:
    """Returns the number of tile programs that `strips` runs for an image of `height` × `width` pixels."""
    if plan.canvas:
        return 1
    return -(-height // plan.side) * -(-width // plan.side) * (programs.network.blocks + 2)
