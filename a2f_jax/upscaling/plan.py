"""Memory planning: tile size and storage of the intermediate states for an image of a given size."""

import dataclasses
import os
import pathlib
import re
import shutil
import tempfile
from typing import Literal

import jax
import jax.numpy as jnp
import psutil

from a2f_jax.errors import UserError
from a2f_jax.files import format_bytes, require_space
from a2f_jax.machine import free_memory, usable_cores, used_memory
from a2f_jax.models.a2f import A2F, HIDDEN

RUNTIME = 400 << 20
"""Bytes of host memory taken by Python, JAX and the compiler, measured by `benchmarks/inference.py`."""

DISK_LIMIT = 16 << 30
"""Default limit, in bytes, for the temporary file with the states of an image; half of the free space if that is less.

A photograph of 24 megapixels takes 13 GB with a2f-sd. A file of 400 bytes can declare an image that takes more.
"""

CPU_SIDE = 64
"""Side in pixels of the tiles on a CPU."""

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

# Candidate tile sides. On a CPU, the intermediate values of a tile should fit into the cache; GPUs are only efficient
# on large arrays. On a TPU, XLA estimates the fewest cycles per pixel for 256, and a tile of 1024 would take 13 GB
# (`a2f upscale --compile-for v5e --tile 256`).
_SIDES = {"cpu": (CPU_SIDE,), "gpu": (64, 128, 256, 512, 1024), "tpu": (64, 128, 256)}


# Longest side in pixels of the images that a GPU computes as a whole, by one program: starting those of tiles takes it
# longer than the arithmetic. Compiling takes a GPU seconds, but a TPU a minute or more for each size of the canvas.
_LARGEST_CANVAS = {"gpu": 2048}

Place = Literal["device", "host", "disk"]


@dataclasses.dataclass(frozen=True)
class Plan:
    """How an image is divided into tiles and where the intermediate states are stored.

    Attributes:
      side: side of a tile in input pixels, a multiple of 8.
      place: where the states are stored: in device memory, in host memory or in a temporary file on disk.
      folder: folder of the temporary file; None means the system's default.
      canvas: height and width of the array that the whole image is computed in, by one program and without tiles; None
        means tiles.
      workers: number of tiles computed at the same time; None means as many as suit the device.
      share: the part of a CPU's cores or of the memory budget that the computation takes, whichever is larger: above 0
        and at most 1. Images whose shares add up to 1 can be computed at the same time.
    """

    side: int
    place: Place = "device"
    folder: pathlib.Path | None = None
    canvas: tuple[int, int] | None = None
    workers: int | None = None
    share: float = 1.0


def parse_bytes(text: str) -> int:
    """Parses a memory size.

    Args:
      text: a number with an optional unit, such as `"2GB"`, `"512M"` or `"1.5 GiB"`. Units are powers of 1024.

    Returns:
      The size in bytes.

    Raises:
      UserError: the text is not a size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise UserError(f"{text!r} is not a memory size: use for example 2GB or 512MB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def default_memory(device: jax.Device) -> int:
    """Returns the default memory budget in bytes: three quarters of the device's free memory.

    On a CPU, it is three quarters of the host's free memory, and what this process already occupies of `RUNTIME`.
    """
    if device.platform == "cpu":
        return free_memory() * 3 // 4 + min(used_memory(), RUNTIME)
    stats = device.memory_stats()
    free = stats["bytes_limit"] - stats["bytes_in_use"] if stats and "bytes_limit" in stats else free_memory()
    return free * 3 // 4


def workers(platform: str) -> int:
    """Returns how many tiles to compute at the same time: one per CPU core, or enough to keep an accelerator busy."""
    if platform != "cpu":
        return 2
    return usable_cores()


def working_bytes(network: A2F, width: int, side: int, platform: str, count: int) -> int:
    """Returns the bytes of working memory for an image of `width` pixels in tiles of `side`, `count` at the same time.

    That is about five arrays of the hidden layer's size for each of these tiles and, on a CPU, three copies of a strip
    of the result in float32: its tiles, the strip that is made of them, and what the caller makes of it.
    """
    hidden = (side + 8) ** 2 * HIDDEN * jnp.dtype(network.dtype).itemsize
    strip = 12 * network.scale**2 * side * (-(-width // side) * side) if platform == "cpu" else 0
    return count * 5 * hidden + 3 * strip


def _canvas_side(size: int) -> int:
    # 64, 96, 128, 192, 256, 384, …: few programs, with at most half as many rows or columns again as the image.
    power = 64
    while power < size:
        power *= 2
    return power * 3 // 4 if power > 64 and size <= power * 3 // 4 else power


def canvas_bytes(network: A2F, height: int, width: int) -> int:
    """Returns the bytes that one program takes for a canvas of `height` × `width` pixels.

    That is about three arrays of the hidden layer's size, all states, and the states once more, joined.
    """
    channels = 3 * HIDDEN + 2 * (network.blocks + 1) * network.features
    return height * width * (channels * jnp.dtype(network.dtype).itemsize + 24 * network.scale**2)


def state_bytes(network: A2F, height: int, width: int, side: int) -> int:
    """Returns the bytes needed to store all states of an image of `height` × `width` pixels in tiles of `side`."""
    pixels = -(-height // side) * -(-width // side) * side**2
    return pixels * (network.blocks + 1) * network.features * jnp.dtype(network.dtype).itemsize


def _in_memory(folder: pathlib.Path) -> bool:
    mounts = [
        (len(p.mountpoint), p.fstype) for p in psutil.disk_partitions(all=True) if folder.is_relative_to(p.mountpoint)
    ]
    return bool(mounts) and max(mounts)[1] in ("tmpfs", "ramfs")


def _folder_on_a_disk() -> pathlib.Path:
    # Where /tmp is in memory, /var/tmp is not, by convention. $TMPDIR is what the user wants.
    folder, other = pathlib.Path(tempfile.gettempdir()), pathlib.Path("/var/tmp")
    if "TMPDIR" not in os.environ and _in_memory(folder) and os.access(other, os.W_OK) and not _in_memory(other):
        return other
    return folder


def rounded_side(side: int) -> int:
    """Returns the side of a tile, in pixels, rounded up to the multiple of 8 that programs need."""
    return -(-side // 8) * 8


def make_plan(
    network: A2F,
    height: int,
    width: int,
    *,
    memory: int,
    disk: int | None = None,
    platform: str,
    side: int | None = None,
    reserved: int = 0,
    images: int = 1,
    concurrent: int = 1,
) -> Plan:
    """Chooses the tile size and where the states are stored.

    Args:
      network: the network to run.
      height: height of the input image in pixels.
      width: width of the input image in pixels.
      memory: memory budget in bytes. It covers the device's memory; on a CPU, it covers the whole process.
      disk: largest size in bytes of a temporary file with the states. None: `DISK_LIMIT`, but at most half of the free
        space.
      platform: platform of the device, such as `"cpu"` or `"gpu"`.
      side: side of a tile in pixels, rounded up to a multiple of 8, and at most about the side of the image; None
        chooses the best fit for memory and device.
      reserved: bytes of host memory that hold input and output during the computation.
      images: number of images of this size whose states are stored at the same time.
      concurrent: number of upscalers that run at the same time and share the memory of the host.

    Returns:
      The plan.

    Raises:
      UserError: the memory budget, the disk limit or the free disk space for the states is too small.
    """
    on_cpu = platform == "cpu"
    room = (memory - RUNTIME) // concurrent - reserved if on_cpu else memory
    canvas = None
    if side is None and max(height, width) <= _LARGEST_CANVAS.get(platform, 0):
        sides = _canvas_side(height), _canvas_side(width)
        canvas = sides if canvas_bytes(network, *sides) <= room else None
    if side is None:
        candidates = _SIDES.get(platform, _SIDES["gpu"])
        fitting = [s for s in candidates if working_bytes(network, width, s, platform, workers(platform)) <= room // 2]
        # Minimize the computed area, including what reaches beyond the image. 128² accounts for the cost of starting
        # the programs of a tile.
        side = min(fitting or [64], key=lambda s: -(-height // s) * -(-width // s) * (s**2 + 128**2))
    # A larger tile than the image would only be padded. As with canvases, few sizes need few programs.
    side = min(rounded_side(side), _canvas_side(max(height, width)))
    count = min(workers(platform), -(-height // side) * -(-width // side)) if on_cpu else workers(platform)
    while (working := working_bytes(network, width, side, platform, count)) > room and on_cpu and count > 1:
        count -= 1  # slower, but the memory suffices
    states = images * state_bytes(network, height, width, side)
    if working > room:
        needed = RUNTIME + concurrent * (reserved + working) if on_cpu else working
        raise UserError(
            f"{format_bytes(memory)} of memory is too little for {width}×{height} pixels: at least "
            f"{format_bytes(needed)} is needed",
            parameter="memory",
        )
    if working + states <= room:
        memory_share = (reserved + working + states) / (room + reserved)
        share = max(count / workers(platform), memory_share) if on_cpu else 1.0
        return Plan(side, "device", canvas=canvas, workers=count, share=share)
    if not on_cpu and states + reserved <= free_memory() // 2 // concurrent:
        return Plan(side, "host", workers=count)
    folder = _folder_on_a_disk()
    remedy = "set TMPDIR to a folder on a larger disk, or allow more memory"
    require_space(folder, states, f"upscaling {width}×{height} pixels", remedy=remedy, parameter="memory")
    free = shutil.disk_usage(folder).free
    limit = min(DISK_LIMIT, free // 2) if disk is None else disk
    if states > limit:
        raise UserError(
            f"{width}×{height} pixels need {format_bytes(states)} of temporary disk space in {folder}, which has "
            f"{format_bytes(free)} free, but the limit is {format_bytes(limit)}: allow more disk space, or more memory",
            parameter="disk",
        )
    return Plan(side, "disk", folder, workers=count)
