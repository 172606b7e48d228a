"""The network's states of a whole image, kept as tiles in device memory, in host memory or in a file."""

import math
import mmap
import pathlib
import tempfile
from typing import Any, Protocol

import jax
import numpy as np

from a2f_jax.upscaling.programs import BLOCK_HALO, Programs, surround

Tile = tuple[int, int]
"""Row and column in the grid of tiles."""


class States(Protocol):
    """States s_0 to s_L of an image."""

    def put(self, index: int, tile: Tile, values: jax.Array) -> None:
        """Keeps `[T, T, n]` of state `index`."""

    def get(self, index: int, tile: Tile) -> Any:
        """Returns what was put."""

    def padded(self, index: int, tile: Tile) -> Any:
        """Returns the tile with its neighbours' borders, zero beyond the grid: `[T + 2 BLOCK_HALO, ..., n]`."""


def _around(tile: Tile) -> list[list[Tile]]:
    row, column = tile
    return [[(row + y, column + x) for x in (-1, 0, 1)] for y in (-1, 0, 1)]


class DeviceStates:
    """States in the memory of the device."""

    def __init__(self, programs: Programs, zero: jax.Array):
        self._tiles: dict[tuple[int, Tile], jax.Array] = {}
        self._surround = programs.surround
        self._zero = zero

    def put(self, index: int, tile: Tile, values: jax.Array) -> None:
        """See `States`."""
        self._tiles[index, tile] = values

    def get(self, index: int, tile: Tile) -> jax.Array:
        """See `States`."""
        return self._tiles[index, tile]

    def padded(self, index: int, tile: Tile) -> jax.Array:
        """See `States`."""
        return self._surround([[self._tiles.get((index, t), self._zero) for t in row] for row in _around(tile)])


class HostStates:
    """States in host memory or in a file that the system maps into memory, and forgets when it is closed."""

    def __init__(self, count: int, grid: Tile, zero: np.ndarray, folder: pathlib.Path | None):
        shape = (count, *grid, *zero.shape)
        dtype = zero.dtype
        self._zero = zero
        self._grid = grid
        self._values: np.ndarray
        if folder is None:
            self._values = np.empty(shape, dtype)
        else:
            with tempfile.TemporaryFile(dir=folder, prefix="a2f_states_") as file:
                file.truncate(math.prod(shape) * dtype.itemsize)
                self._values = np.memmap(file, dtype, "r+", shape=shape)

    def put(self, index: int, tile: Tile, values: jax.Array) -> None:
        """See `States`."""
        self._values[index][tile] = np.asarray(values)
        self._let_go(tile)

    def _let_go(self, tile: Tile) -> None:
        """After a row of tiles, unmaps what the file keeps anyway: else all of it would count as our memory."""
        if tile[1] < self._grid[1] - 1:
            return
        mapping = getattr(self._values, "_mmap", None)
        if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)

    def get(self, index: int, tile: Tile) -> np.ndarray:
        """See `States`."""
        rows, columns = self._grid
        if 0 <= tile[0] < rows and 0 <= tile[1] < columns:
            return self._values[index][tile]
        return self._zero

    def padded(self, index: int, tile: Tile) -> np.ndarray:
        """See `States`."""
        values = surround([[self.get(index, t) for t in row] for row in _around(tile)], halo=BLOCK_HALO, xp=np)
        self._let_go(tile)
        return values
