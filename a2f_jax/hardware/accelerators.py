"""Published properties of accelerators, and the notation for a number of them, such as `v5e:16x16` or `h100:8`."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from a2f_jax.errors import UserError
from a2f_jax.files import local_path

_GB = 10**9
_MIB, _GIB = 1 << 20, 1 << 30
_TERA = 10**12

_CLOUD_TPU = "https://cloud.google.com/tpu/docs/"
_XLA_SPECS = "https://github.com/openxla/xla/tree/main/xla/backends/gpu/target_config/specs"


class Accelerator(NamedTuple):
    """What is published about one accelerator.

    Attributes:
      kind: its name in messages, such as `"TPU v5e"`.
      platform: `"tpu"`, `"gpu"`, or `"cpu"`.
      memory: memory of one device in bytes, or None if it is not known.
      bandwidth: peak bandwidth of this memory in bytes per second, or None if it is not known.
      flops: peak floating-point operations per second for each dtype of a network, on dense operands and in the
        precision that JAX uses by default: on TPUs float32 values are multiplied in bfloat16, on NVIDIA GPUs in TF32.
      source: where these numbers are published.
      target_config: for a GPU, the text protocol buffer `GpuTargetConfigProto` that XLA compiles for.
    """

    kind: str
    platform: str
    memory: int | None
    bandwidth: float | None
    flops: Mapping[str, float]
    source: str
    target_config: str = ""

    @property
    def usable_memory(self) -> int | None:
        """Bytes that a program can use: JAX allocates three quarters of a GPU's memory by default."""
        if self.memory is None or self.platform != "gpu":
            return self.memory
        return self.memory * 3 // 4


def _tpu(version: str, memory: int, bandwidth: float, teraflops: float) -> Accelerator:
    peak = teraflops * _TERA
    flops = {"float32": peak, "bfloat16": peak}
    return Accelerator(f"TPU {version}", "tpu", memory * _GIB, bandwidth * _GB, flops, _CLOUD_TPU + version)


def _gpu(
    kind: str,
    memory: int,
    bandwidth: float,
    tf32: float,
    bf16: float,
    source: str,
    *,
    capability: tuple[int, int],
    cores: int,
    lanes: int,
    threads: int,
    shared: int,
    l2: int,
    clock: float,
) -> Accelerator:
    # Names and units are those of XLA's GpuDeviceInfoProto. A block can use the shared memory of a core except 1 KiB.
    target_config = f"""
        gpu_device_info {{
          threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: {threads}
          shared_memory_per_block: 49152 shared_memory_per_core: {shared << 10}
          shared_memory_per_block_optin: {(shared - 1) << 10}
          core_count: {cores} fpus_per_core: {lanes} clock_rate_ghz: {clock}
          block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
          registers_per_core_limit: 65536 registers_per_block_limit: 65536
          memory_bandwidth: {round(bandwidth * _GB)} device_memory_size: {memory} l2_cache_size: {l2 << 20}
          cuda_compute_capability {{ major: {capability[0]} minor: {capability[1]} }}
        }}
        runtime_version {{ major: 13 }} dnn_version_info {{ major: 9 minor: 12 }}
        platform_name: "CUDA" device_description_str: "NVIDIA {kind}"
    """
    flops = {"float32": tf32 * _TERA, "bfloat16": bf16 * _TERA}
    return Accelerator(f"NVIDIA {kind}", "gpu", memory, bandwidth * _GB, flops, source, target_config)


# Memory of GPUs is what the driver reports. Of a TPU's memory, the compiler keeps up to 2 % for itself.
ACCELERATORS: Mapping[str, Accelerator] = {
    "v4": _tpu("v4", 32, 1228, 275),
    "v5e": _tpu("v5e", 16, 819, 197),
    "v5p": _tpu("v5p", 95, 2765, 459),
    "v6e": _tpu("v6e", 32, 1640, 918),
    "a100": _gpu(
        "A100-SXM4-80GB",
        85100068864,
        2039,
        156,
        312,
        f"https://www.nvidia.com/en-us/data-center/a100/ and {_XLA_SPECS}",
        capability=(8, 0),
        cores=108,
        lanes=64,
        threads=2048,
        shared=164,
        l2=40,
        clock=1.41,
    ),
    "h100": _gpu(
        "H100 80GB HBM3",
        84929347584,
        3352,
        494.5,
        989,
        f"https://www.nvidia.com/en-us/data-center/h100/ and {_XLA_SPECS}",
        capability=(9, 0),
        cores=132,
        lanes=128,
        threads=2048,
        shared=228,
        l2=50,
        clock=1.98,
    ),
    "h200": _gpu(
        "H200 141GB HBM3e",
        151397597184,
        4800,
        494.5,
        989,
        f"https://www.nvidia.com/en-us/data-center/h200/ and {_XLA_SPECS}",
        capability=(9, 0),
        cores=132,
        lanes=128,
        threads=2048,
        shared=228,
        l2=50,
        clock=1.98,
    ),
    "l4": _gpu(
        "L4",
        23034 << 20,
        300,
        60.5,
        121,
        "https://www.nvidia.com/en-us/data-center/l4/",
        capability=(8, 9),
        cores=58,
        lanes=128,
        threads=1536,
        shared=100,
        l2=48,
        clock=2.04,
    ),
    "rtx4090": _gpu(
        "GeForce RTX 4090",
        24564 << 20,
        1008,
        82.6,
        165.2,
        "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf",
        capability=(8, 9),
        cores=128,
        lanes=128,
        threads=1536,
        shared=100,
        l2=72,
        clock=2.52,
    ),
    "cpu": Accelerator("CPU", "cpu", None, None, {}, ""),
}
"""Accelerators by the name that `parse_target` takes."""


_LARGEST_SIDES = {"v4": 16, "v5e": 16, "v5p": 28, "v6e": 16, "cpu": 64}
_MOST_DEVICES = 8960  # a whole pod of v5p


class Target(NamedTuple):
    """The devices that a program is compiled for.

    Attributes:
      name: how the user wrote it, such as `"v5e:16x16"`.
      accelerator: the kind of device.
      shape: the number of chips along each axis of a TPU slice, the number of hosts and of GPUs per host, or the number
        of CPU devices.
    """

    name: str
    accelerator: Accelerator
    shape: tuple[int, ...]

    @property
    def device_count(self) -> int:
        """The number of devices."""
        return math.prod(self.shape)


def parse_target(text: str) -> Target:
    """Parses the devices to compile for.

    Args:
      text: `NAME[:SHAPE]`, where the name is one in `ACCELERATORS` or a file with a `GpuTargetConfigProto` as text. The
        shape is the layout of a TPU slice in chips (`"v5e:4x8"`, `"v5p:2x2x1"`), a number of GPUs on one host
        (`"h100:8"`), hosts × GPUs per host (`"h100:4x8"`), or a number of CPU devices. The default is one device.

    Raises:
      UserError: the name or the shape is invalid, or the file cannot be read.
    """
    name, shape = text, None
    if ":" in text and not _is_file_name(text):
        file = text.rpartition(":")[0]
        name = file if _is_file_name(file) else text.partition(":")[0]  # the name of a file may contain colons
        shape = text[len(name) + 1 :]
    accelerator = ACCELERATORS.get(name.lower()) or _from_file(name)
    if accelerator is None:
        raise UserError(
            f"{name!r} is not a known device: choose one of {', '.join(ACCELERATORS)}, or pass a file (*.txtpb) with "
            f"the target configuration of a GPU, such as those in {_XLA_SPECS}"
        )
    axes = 3 if name.lower() in ("v4", "v5p") else 2
    if shape is None:
        return Target(text, accelerator, (1,) * axes if accelerator.platform == "tpu" else (1,))
    example = {"tpu": f"{name}:{'x'.join('221'[:axes])}", "gpu": f"{name}:8", "cpu": "cpu:8"}[accelerator.platform]
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){0,2}", shape):
        raise UserError(f"{text} is invalid: write the devices as, for example, {example}")
    sides = tuple(map(int, shape.split("x")))
    most = _LARGEST_SIDES.get(name.lower(), _MOST_DEVICES)
    if max(sides) > most or math.prod(sides) > _MOST_DEVICES:
        raise UserError(f"{text} is too large: use sides of at most {most}, and at most {_MOST_DEVICES} devices")
    if accelerator.platform == "tpu" and any(side > 1 and side % 2 for side in sides[:2]):
        raise UserError(f"{text} is not a slice: the first two sides must be 1 or even, for example {example}")
    allowed = {"tpu": (axes,), "gpu": (1, 2), "cpu": (1,)}[accelerator.platform]
    if len(sides) not in allowed:
        what = f"a {accelerator.kind} slice has {axes} axes" if accelerator.platform == "tpu" else "too many axes"
        raise UserError(f"{text} is invalid: {what}; write it as, for example, {example}")
    return Target(text, accelerator, sides)


# XLA divides by some of these without a check, and takes others to be 0.
_REQUIRED_GROUPS = ("gpu_device_info", "cuda_compute_capability")
_REQUIRED_NUMBERS = (
    "device_memory_size",
    "memory_bandwidth",
    "threads_per_warp",
    "block_dim_limit_x",
    "shared_memory_per_block_optin",
)


def _is_file_name(name: str) -> bool:
    return name.endswith((".txtpb", ".pbtxt", ".txt"))


def _from_file(name: str) -> Accelerator | None:
    if not _is_file_name(name):
        return None
    try:
        text = local_path(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the target configuration {name}: {error}") from error

    def field(pattern: str) -> str | None:
        match = re.search(rf"\b{pattern}", text)
        return match[1] if match else None

    # Of numbers, at least 1. A memory of less than a megabyte would round to nothing.
    numbers = {key: int(field(rf"{key}:\s*(\d+)") or 0) for key in _REQUIRED_NUMBERS}
    missing = [key for key in _REQUIRED_GROUPS if not field(rf"({key})\s*[:{{]")]
    missing += [key for key, number in numbers.items() if number < (_MIB if key == "device_memory_size" else 1)]
    if missing:
        raise UserError(
            f"{name} is not the target configuration of an NVIDIA GPU: {', '.join(missing)} is missing or too "
            f"small; see those in {_XLA_SPECS}"
        )
    kind = field(r'device_description_str:\s*"([^"]*)"') or name
    # The peak of the arithmetic is not part of the file.
    return Accelerator(kind, "gpu", numbers["device_memory_size"], float(numbers["memory_bandwidth"]), {}, name, text)
