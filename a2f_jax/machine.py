"""The memory and the CPU cores of the machine that this process may use."""

import math
import os
import pathlib
from collections.abc import Iterator

import psutil

_OWN_GROUPS, _GROUPS = pathlib.Path("/proc/self/cgroup"), pathlib.Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Returns the number of bytes of host memory that this process can use without swapping or being killed.

    Containers and batch systems limit the memory of a process to less than that of the machine.
    """
    return min([psutil.virtual_memory().available, *_free_in_control_groups()])


def used_memory() -> int:
    """Returns the number of bytes of host memory that this process occupies."""
    return psutil.Process().memory_info().rss


def usable_cores() -> int:
    """Returns the number of CPU cores that this process may use.

    Schedulers restrict a process to some of the cores of the machine, and containers to the time of some of them.
    """
    # Where the operating system supports it, count only the cores that this process is scheduled on.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *_cores_of_control_groups()]))


def _control_groups(controller: str) -> Iterator[tuple[bool, pathlib.Path]]:
    # Yields the folder of every group that limits this process, and whether it belongs to version 2.
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root = _GROUPS
        elif controller in controllers.split(","):
            root = _GROUPS / controller
        else:
            continue
        group = root / path.lstrip("/")  # in a container, this may be a folder that only the host can see
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                yield not controllers, folder


def _free_in_control_groups() -> Iterator[int]:
    for unified, folder in _control_groups("memory"):
        names = (
            ("memory.max", "memory.current", "inactive_file")
            if unified
            else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        )
        try:
            limit, used = (int((folder / name).read_text()) for name in names[:2])
            cached = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())[names[2]]
        except (OSError, ValueError, KeyError):  # no such folder, or "max": no limit
            continue
        yield max(0, limit - used + int(cached))  # the kernel frees cached files on demand


def _cores_of_control_groups() -> Iterator[int]:
    for unified, folder in _control_groups("cpu"):
        try:
            if unified:
                quota, period = map(int, (folder / "cpu.max").read_text().split())
            else:
                quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        except (OSError, ValueError):  # no such folder, or "max": no limit
            continue
        if quota > 0:  # -1: no limit
            yield math.ceil(quota / period)
