"""Devices to compile for that this machine does not have, which JAX calls a topology."""

import importlib.util
import os
import sys

import jax
from jax.experimental import topologies

from a2f_jax.errors import UserError, count_of
from a2f_jax.hardware.accelerators import Target

_COMPILERS = {"tpu": ("libtpu",), "gpu": ("jax_cuda13_plugin", "jax_cuda12_plugin")}

# libtpu looks for a TPU and for the machines of its slice, and complains where there are none. It also locks out other
# processes, since only one can use a TPU; any number can compile.
_NO_TPU_HERE = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5e-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}


def compile_only_devices(target: Target) -> list[jax.Device]:
    """Returns devices that programs can be compiled for but not run on.

    The compilers for other platforms can be loaded only while JAX's own platform is the CPU, so this sets
    `jax_platforms` unless JAX has already been initialized.

    Args:
      target: the devices. Those of `cpu` are this machine's, divided into as many as the target asks for.

    Returns:
      One device per TPU chip, GPU, or part of the CPU.

    Raises:
      UserError: the compiler is not installed, or it knows no such topology.
    """
    platform = target.accelerator.platform
    try:
        jax.config.update("jax_platforms", "cpu")
        if platform == "cpu":
            jax.config.update("jax_num_cpu_devices", target.device_count)
    except RuntimeError:
        pass  # already initialized
    if platform == "cpu":
        devices = jax.devices("cpu")
        if len(devices) < target.device_count:
            raise UserError(f"{target.name}: JAX was initialized with {count_of(len(devices), 'CPU device')}")
        return devices[: target.device_count]
    if not any(importlib.util.find_spec(module) for module in _COMPILERS[platform]):
        linux = sys.platform == "linux"
        remedy = "install the compilers with the extra [compile]" if linux else "the compilers exist for Linux only"
        raise UserError(f"cannot compile for {target.name}: {remedy}")
    try:
        return list(_tpu(target) if platform == "tpu" else _gpu(target))
    except (RuntimeError, ValueError) as error:  # a JaxRuntimeError is a RuntimeError
        raise UserError(f"cannot compile for {target.name}: {' '.join(str(error).split())}") from error


def _tpu(target: Target) -> list[jax.Device]:
    for name, value in _NO_TPU_HERE.items():
        os.environ.setdefault(name, value)
    name, _, _ = target.name.lower().partition(":")
    sides = (*target.shape, 1, 1)[:3]
    # A machine of a slice has 2 × 2 chips. Smaller slices are part of one.
    bounds = tuple(min(side, most) for side, most in zip(sides, (2, 2, 1), strict=True))
    # The two cores of a v4 or v5p chip appear as one device, "megacore", as on Cloud TPU.
    config = {"chip_config_name": "megacore"} if name in ("v4", "v5p") else {}
    layout = f"{name}:{'x'.join(map(str, target.shape))}"
    return topologies.get_topology_desc(layout, "tpu", chips_per_host_bounds=bounds, **config).devices


def _gpu(target: Target) -> list[jax.Device]:
    hosts, gpus = (1, *target.shape)[-2:]
    return topologies.get_topology_desc(
        "", "cuda", target_config=target.accelerator.target_config, topology=f"1x{hosts}x{gpus}"
    ).devices
