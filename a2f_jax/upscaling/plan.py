"""How much memory there is, how much an image needs, and so how it is computed."""

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
from a2f_jax.models.a2f import A2F, HIDDEN

RUNTIME = 400 << 20
"""Bytes that Python, JAX and its compiler take on the host, measured by `benchmarks/inference.py`."""

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

# On a CPU the intermediate values of a tile should fit its cache; other devices want large products.
_SIDES = {"cpu": (64,), "other": (64, 128, 256, 512, 1024)}


Place = Literal["device", "host", "disk"]


@dataclasses.dataclass(frozen=True)
class Plan:
    """How an image is computed.

    Attributes:
      side: of a tile, in pixels of the image, a multiple of 8.
      place: where the states wait.
      folder: for a file of states; the system's folder of temporary files if it is None.
    """

    side: int
    place: Place = "device"
    folder: pathlib.Path | None = None


def parse_bytes(text: str) -> int:
    """Reads an amount of memory such as `2GB`, `512M` or `1.5 GiB` (all powers of 1024).

    Raises:
      UserError: it is no such amount.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise UserError(f"{text!r} is no amount of memory: write for instance 2GB or 512MB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def free_memory() -> int:
    """Returns the bytes of host memory that can be had without swapping."""
    return psutil.virtual_memory().available


def default_memory(device: jax.Device) -> int:
    """Returns the bytes to use by default: three quarters of what the device, or on a CPU the host, has free."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    free = stats["bytes_limit"] - stats["bytes_in_use"] if stats and "bytes_limit" in stats else free_memory()
    return free * 3 // 4


def workers(platform: str) -> int:
    """Returns how many tiles are computed at once: one per CPU, or enough to keep another device busy."""
    if platform != "cpu":
        return 2
    # Not every system can say how many CPUs are ours.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def working_bytes(network: A2F, side: int, platform: str) -> int:
    """Bytes that the tiles need which are computed at the same time: about five arrays as large as the hidden one."""
    hidden = (side + 8) ** 2 * HIDDEN * jnp.dtype(network.dtype).itemsize
    return workers(platform) * 5 * hidden


def state_bytes(network: A2F, height: int, width: int, side: int) -> int:
    """Bytes of all states of an image."""
    pixels = -(-height // side) * -(-width // side) * side**2
    return pixels * (network.blocks + 1) * network.features * jnp.dtype(network.dtype).itemsize


def make_plan(
    network: A2F, height: int, width: int, *, memory: int, platform: str, side: int | None = None, reserved: int = 0
) -> Plan:
    """Decides on the size of the tiles and where the states wait.

    Args:
      network: the network.
      height: of the image, in pixels.
      width: likewise.
      memory: bytes that may be used: of the device; on a CPU, of the whole process.
      platform: of the device, such as `"cpu"` or `"gpu"`.
      side: of the tiles, rounded up to a multiple of 8; without it the largest that suits memory and device.
      reserved: bytes of input and output that are in host memory meanwhile.

    Returns:
      The plan.

    Raises:
      UserError: the memory, or the space for a file of states, is too small.
    """
    on_cpu = platform == "cpu"
    room = memory - (RUNTIME + reserved if on_cpu else 0)
    if side is None:
        fitting = [s for s in _SIDES["cpu" if on_cpu else "other"] if working_bytes(network, s, platform) <= room // 2]
        # The least area with what reaches beyond the border; starting a tile's programs costs time too.
        side = min(fitting or [64], key=lambda s: -(-height // s) * -(-width // s) * (s**2 + 128**2))
    side = -(-side // 8) * 8
    working, states = working_bytes(network, side, platform), state_bytes(network, height, width, side)
    if working > room:
        needed = (memory - room + working >> 20) + 1
        raise UserError(f"--memory {memory >> 20}MB is too little for {width}×{height} pixels: {needed}MB would do")
    if working + states <= room:
        return Plan(side, "device")
    if not on_cpu and states + reserved <= free_memory() // 2:
        return Plan(side, "host")
    folder = pathlib.Path(tempfile.gettempdir())
    if states > shutil.disk_usage(folder).free:
        raise UserError(
            f"{folder} has no room for {states >> 30} GB of intermediate values: set TMPDIR to a larger disk, or "
            "raise --memory"
        )
    return Plan(side, "disk", folder)
