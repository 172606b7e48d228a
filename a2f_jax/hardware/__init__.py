"""Devices that programs can be compiled for without having them, and what the compiled programs would cost there."""

from a2f_jax.hardware.accelerators import ACCELERATORS, Accelerator, Target, parse_target
from a2f_jax.hardware.program_costs import OutOfMemory, ProgramCosts, compile_costs, roofline_seconds
from a2f_jax.hardware.topologies import compile_only_devices

__all__ = [
    "ACCELERATORS",
    "Accelerator",
    "OutOfMemory",
    "ProgramCosts",
    "Target",
    "compile_costs",
    "compile_only_devices",
    "parse_target",
    "roofline_seconds",
]
