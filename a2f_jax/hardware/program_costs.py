"""What a compiled program costs on one device: memory, arithmetic, traffic, and communication."""

import contextlib
import dataclasses
import re
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from a2f_jax.errors import UserError
from a2f_jax.hardware import hlo
from a2f_jax.hardware.accelerators import Accelerator


class OutOfMemory(Exception):
    """The compiler has refused a program that needs more memory than the device has.

    The message tells how much it needs and how much there is, where the compiler tells.
    """


_SIZE = r"([\d.]+[KMGT]?)"

# How the compilers for TPUs and GPUs tell the needed and the available memory, for the main and for smaller memories.
_SHORTAGES = (
    rf"\({_SIZE}\) exceeds available \w+ \({_SIZE}\)",
    rf"Used {_SIZE} of {_SIZE} \w+",
    rf"allocate {_SIZE}i?B?(?: bytes)?\b",
)


def _shortage(text: str) -> str:
    """Returns in one line what the compiler says about memory that is not sufficient."""
    for pattern in _SHORTAGES:
        if match := re.search(pattern, text):
            needed, *available = (f"{size} bytes" if size[-1].isdigit() else f"{size}B" for size in match.groups())
            sizes = [re.sub(r"([KMGT]B)$", r" \1", size) for size in (needed, *available)]
            return f"it needs {sizes[0]} of memory" + (f", and {sizes[1]} are available" if available else "")
    return re.split(r"\.\s", f"{' '.join(text.split())} ")[0]


@dataclasses.dataclass(frozen=True)
class ProgramCosts:
    """What one execution of a program costs on one device. All sizes are in bytes.

    Attributes:
      arguments: what the program is given, such as state and batch.
      outputs: what it returns.
      aliased: the part of the outputs that reuses the memory of arguments.
      temporaries: what it needs while it runs.
      code: the program itself; 0 where the compiler does not tell.
      bytes_accessed: the compiler's own count of the bytes that all instructions read and write, in whichever memory
        of the chip. The bodies of loops count once. None where the compiler gives none.
      traffic: bytes read from and written to the device's main memory, see `hlo.Summary`.
      collectives: communication between devices, see `hlo.Summary`.
      host_transfers: transfers from or to the host while the program runs.
      cycles: the compiler's estimate of the clock cycles; None where it gives none.
      lowering_seconds: how long tracing and lowering took.
      compilation_seconds: how long compilation took.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    code: int
    bytes_accessed: int | None
    traffic: int
    collectives: dict[str, hlo.Collective]
    host_transfers: int
    cycles: int | None
    lowering_seconds: float
    compilation_seconds: float

    @property
    def peak_memory(self) -> int:
        """The memory that the device needs to run the program."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code

    def fits(self, accelerator: Accelerator) -> bool:
        """Returns whether a device has enough memory; True if its memory is not known."""
        return accelerator.usable_memory is None or self.peak_memory <= accelerator.usable_memory


def roofline_seconds(accelerator: Accelerator, dtype: str, flops: float, traffic: float) -> float | None:
    """Returns the least time that published peak numbers allow, in seconds: that of the arithmetic or of the traffic.

    Args:
      accelerator: the device.
      dtype: the computation dtype, which determines the peak.
      flops: floating-point operations.
      traffic: bytes read from and written to the main memory.

    Returns:
      The time, or None if the peaks are not known.
    """
    if dtype not in accelerator.flops or not accelerator.bandwidth:
        return None
    return max(flops / accelerator.flops[dtype], traffic / accelerator.bandwidth)


# What the compiler for GPUs reports, and what to do about it.
_REMEDIES = {
    "No PTX compilation provider": "install ptxas with the extra [compile], or the CUDA toolkit",
    "ptxas too old": "the installed ptxas does not know this GPU, which is too new for it or no longer supported",
}


@contextlib.contextmanager
def _without_compilation_cache() -> Iterator[None]:
    # A program can be read from the cache only if its device exists.
    folder = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", folder)
        compilation_cache.reset_cache()


def compile_costs(jitted: Any, *arguments: Any) -> ProgramCosts:
    """Compiles a program and returns its costs.

    Args:
      jitted: a function that `jax.jit` or `jax.pmap` has returned.
      *arguments: arrays, or `jax.ShapeDtypeStruct` with a sharding over the devices to compile for.

    Raises:
      OutOfMemory: the compiler has refused the program because of its memory.
      UserError: the compiler has failed for another reason.
    """
    start = time.perf_counter()
    lowered = jitted.lower(*arguments)
    lowering_seconds = time.perf_counter() - start
    start = time.perf_counter()
    try:
        with _without_compilation_cache():
            compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        _, exhausted, reason = str(error).partition("RESOURCE_EXHAUSTED: ")
        if not exhausted:
            text = " ".join(str(error).split())
            remedy = next((remedy for sign, remedy in _REMEDIES.items() if sign in text), "try a smaller batch")
            raise UserError(f"the compiler cannot compile this program ({text[:200]}): {remedy}") from error
        raise OutOfMemory(_shortage(reason)) from error
    compilation_seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    counted = compiled.cost_analysis() or {}
    summary = hlo.summarize(compiled.as_text())
    return ProgramCosts(
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        aliased=memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        bytes_accessed=int(counted["bytes accessed"]) if "bytes accessed" in counted else None,
        traffic=summary.traffic,
        collectives=summary.collectives,
        host_transfers=summary.host_transfers,
        cycles=summary.cycles,
        lowering_seconds=lowering_seconds,
        compilation_seconds=compilation_seconds,
    )
