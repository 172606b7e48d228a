"""Storage for the network's states of a whole image: tiles in device memory, in host memory or in a file."""

import math
import mmap
import os
import pathlib
import tempfile
from typing import Any, Protocol

import jax
import numpy as np

from a2f_jax.errors import UserError
from a2f_jax.files import format_bytes
from a2f_jax.upscaling.programs import BLOCK_HALO, Programs, surround

Tile = tuple[int, int]
"""Row and column of a tile in the grid."""


class States(Protocol):
    """The states s_0 to s_L of an image."""

    def put(self, index: int, tile: Tile, values: jax.Array) -> None:
        """Stores a tile `[T, T, n]` of state `index`."""

    def get(self, index: int, tile: Tile) -> Any:
        """Returns a stored tile `[T, T, n]` of state `index`."""

    def padded(self, index: int, tile: Tile) -> Any:
        """Returns a tile surrounded by its neighbors' pixels, zero beyond the grid.

        Returns:
          `[T + 2 · BLOCK_HALO, T + 2 · BLOCK_HALO, n]`.
        """


def _around(tile: Tile) -> list[list[Tile]]:
    row, column = tile
    return [[(row + y, column + x) for x in (-1, 0, 1)] for y in (-1, 0, 1)]


class DeviceStates:
    """States in device memory."""

    def __init__(self, programs: Programs, zero: jax.Array):
        self._tiles: dict[tuple[int, Tile], jax.Array] = {}
        self._surround = programs.surround
        self._zero = zero

    def put(self, index: int, tile: Tile, values: jax.Array) -> None:
        """Stores a tile without copying it."""
        self._tiles[index, tile] = values

    def get(self, index: int, tile: Tile) -> jax.Array:
        """Returns a stored tile."""
        return self._tiles[index, tile]

    def padded(self, index: int, tile: Tile) -> jax.Array:
        """Returns a tile surrounded by its neighbors' pixels, computed on the device."""
        return self._surround([[self._tiles.get((index, t), self._zero) for t in row] for row in _around(tile)])


def _temporary_file(folder: pathlib.Path) -> Any:
    try:
        return tempfile.TemporaryFile(dir=folder, prefix="a2f_states_")
    except OSError as error:
        raise UserError(
            f"cannot create a temporary file in {folder} ({error.strerror}): set TMPDIR to another folder, or allow "
            "more memory",
            parameter="memory",
        ) from error


def _allocate(file: int, size: int, folder: pathlib.Path) -> None:
    # In a file that only has the size, the process would be killed when it writes to a page for which there is no room.
    if not hasattr(os, "posix_fallocate"):
        os.truncate(file, size)
        return
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        raise UserError(
            f"cannot reserve {format_bytes(size)} of temporary disk space in {folder} ({error.strerror}): set TMPDIR "
            "to a folder on a larger disk, or allow more memory",
            parameter="memory",
        ) from error


class HostStates:
    """States in host memory, or in a memory-mapped temporary file that the system deletes when it is closed."""

    def __init__(self, count: int, grid: Tile, zero: np.ndarray, folder: pathlib.Path | None):
        shape = (count, *grid, *zero.shape)
        dtype = zero.dtype
        self._zero = zero
        self._grid = grid
        self._values: np.ndarray
        if folder is None:
            self._values = np.empty(shape, dtype)
        else:
            with _temporary_file(folder) as file:
                _allocate(file.fileno(), math.prod(shape) * dtype.itemsize, folder)
                self._values = np.memmap(file, dtype, "r+", shape=shape)

    def put(self, index: int, tile: Tile, values: jax.Array) -> None:
        """Copies a tile to the host."""
        self._values[index][tile] = np.asarray(values)
        self._unmap(tile)

    def _unmap(self, tile: Tile) -> None:
        # The pages of a mapped file count as memory of this process until they are unmapped, although they are safe on
        # disk. Unmapping after every row of tiles keeps the process within its budget.
        if tile[1] < self._grid[1] - 1:
            return
        mapping = getattr(self._values, "_mmap", None)
        if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)

    def get(self, index: int, tile: Tile) -> np.ndarray:
        """Returns a view of a stored tile, or zeros beyond the grid."""
        rows, columns = self._grid
        if 0 <= tile[0] < rows and 0 <= tile[1] < columns:
            return self._values[index][tile]
        return self._zero

    def padded(self, index: int, tile: Tile) -> np.ndarray:
        """Returns a tile surrounded by its neighbors' pixels, computed on the host."""
        values = surround([[self.get(index, t) for t in row] for row in _around(tile)], halo=BLOCK_HALO, xp=np)
        self._unmap(tile)
        return values
