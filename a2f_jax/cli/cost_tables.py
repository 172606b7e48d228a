"""The output of `--compile-for`: tables for people, JSON for programs."""

import argparse
import json
import pathlib
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from a2f_jax.cli.commands import output_file
from a2f_jax.errors import UserError
from a2f_jax.files import format_bytes, replacing

if TYPE_CHECKING:
    from a2f_jax.hardware import Accelerator, ProgramCosts, Target
    from a2f_jax.training.step_costs import StepCosts
    from a2f_jax.upscaling.tile_costs import TileCosts

_DEVICES = (
    "v4, v5e, v5p, v6e, with the layout of the slice (v5e:16x16); a100, h100, h200, l4, rtx4090, with their number "
    "(h100:8), or hosts and GPUs per host (h100:4x8); cpu:8; or a file with the target configuration of another GPU"
)


def add_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds `--compile-for` and `--json`."""
    group = parser.add_argument_group("costs on other hardware", textwrap.fill(f"devices: {_DEVICES}", 78))
    group.add_argument(
        "--compile-for",
        metavar="DEVICES",
        help=f"only compile {what} for these devices, which need not exist, and print the memory, arithmetic, traffic "
        "and communication; needs the extra [compile]",
    )
    group.add_argument("--json", metavar="FILE", help="also write these figures to a new JSON file")


def json_path(args: argparse.Namespace) -> pathlib.Path | None:
    """Returns the path of the JSON file, or None, after checking that it can be written.

    Raises:
      UserError: the file exists or cannot be written, or there is nothing to write.
    """
    if args.json is None:
        return None
    if args.compile_for is None:
        raise UserError("--json is only for the figures of --compile-for")
    if args.json == "-":
        raise UserError("--json writes a file, because the table goes to standard output: choose a name")
    return output_file(args.json, overwrite=None, flag="--json")


def write_json(path: pathlib.Path, figures: Mapping[str, Any]) -> None:
    """Writes figures to a new JSON file."""
    with replacing(path) as file:
        file.write(json.dumps(figures, indent=2).encode())


def waiting(what: str, *, done: bool = False) -> None:
    """Shows on a terminal what is being compiled, which can take minutes."""
    if sys.stderr.isatty():
        print(f"\r\033[K{'' if done else f'compiling {what} ...'}", end="", file=sys.stderr, flush=True)


def _number(value: float) -> str:
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.3g} "


def _bytes(count: int) -> str:
    return format_bytes(count) if count else "0"


def _duration(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"


def _table(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:{width}}  {value}" for name, value in rows)


def _memory(peak: int, accelerator: "Accelerator") -> str:
    if accelerator.memory is None or accelerator.usable_memory is None:
        return format_bytes(peak)
    share = f", {peak / accelerator.usable_memory:.1%} of {format_bytes(accelerator.usable_memory)}"
    if accelerator.usable_memory < accelerator.memory:
        share += f" (JAX uses three quarters of the {format_bytes(accelerator.memory)} by default)"
    return format_bytes(peak) + share


def shortage(needed: int, accelerator: "Accelerator") -> str:
    """Returns how much memory is needed, in bytes, and how much a device has."""
    available = accelerator.usable_memory
    there = "" if available is None else f", and {format_bytes(available)} are available"
    return f"it needs {format_bytes(needed)} of memory{there}"


def _devices(target: "Target", noun: str) -> str:
    count = "one" if target.device_count == 1 else str(target.device_count)
    return f"{noun} for {count} {target.accelerator.kind}{'' if target.device_count == 1 else f' ({target.name})'}"


def _work(program_flops: int, traffic: int, accelerator: "Accelerator", dtype: str | None) -> list[tuple[str, str]]:
    from a2f_jax.hardware import roofline_seconds

    rows = [
        ("arithmetic", f"{_number(program_flops)}FLOP in convolutions and matrix products"),
        ("traffic", f"{_bytes(traffic)} from and to the main memory of the device (estimate)"),
        ("arithmetic intensity", f"{_number(program_flops / max(traffic, 1))}FLOP per byte"),
    ]
    if dtype and (bound := roofline_seconds(accelerator, dtype, program_flops, traffic)):
        limit = "arithmetic" if program_flops / accelerator.flops[dtype] == bound else "traffic"
        rows.append(("roofline", f"at least {_duration(bound)} at the published peaks, limited by the {limit}"))
    return rows


def print_step(costs: "StepCosts", dtype: str, patch: int) -> None:
    """Prints what a training step costs on each device."""
    import jax

    program, accelerator = costs.program, costs.target.accelerator
    print(
        f"Compiled {_devices(costs.target, 'the training step')} with JAX {jax.__version__} in "
        f"{program.compilation_seconds:.1f} s, after {program.lowering_seconds:.1f} s of tracing and lowering."
    )
    per_device = costs.batch_size // costs.target.device_count
    collectives = [f"{c.times} {kind} of {_bytes(c.bytes)} in all" for kind, c in program.collectives.items()]
    updates = f" per dispatch of {costs.updates} updates" if costs.updates > 1 else ""
    rows = [
        ("batch", f"{costs.batch_size} patches of {patch}×{patch} LR pixels, {per_device} per device"),
        ("parameters", _bytes(costs.parameters) + (f", and their average {_bytes(costs.ema)}" if costs.ema else "")),
        ("optimizer state", _bytes(costs.optimizer)),
    ]
    if costs.images:
        rows.append(
            (
                "training images",
                _bytes(costs.images) + (" (assumed: the size of DIV2K)" if costs.assumed_images else ""),
            )
        )
    rows += [
        ("arguments", f"{_bytes(program.arguments)}, of which {_bytes(program.aliased)} are updated in place"),
        ("temporaries", _bytes(program.temporaries)),
        ("code", _bytes(program.code) if program.code else "unknown"),
        ("peak memory", _memory(program.peak_memory, accelerator)),
        *_work(costs.flops, program.traffic // costs.updates, accelerator, dtype),
    ]
    if program.bytes_accessed is not None:
        rows.append(("bytes accessed", f"{_bytes(program.bytes_accessed)} in all memories of the chip, counted by XLA"))
    if program.cycles is not None:
        cycles = program.cycles // costs.updates
        rows.append(
            ("estimated cycles", f"{_number(cycles)}, {_number(cycles / per_device)} per patch, estimated by XLA")
        )
    rows += [
        ("collectives", (", ".join(collectives) or "none") + (updates if collectives else "")),
        ("host transfers", f"{program.host_transfers}{updates}" if program.host_transfers else "none"),
    ]
    print("Per device and update:" if costs.updates > 1 else "Per device:")
    print(_table(rows))


def print_tile(costs: "TileCosts", network: str, dtype: str) -> None:
    """Prints what upscaling a tile with the named network costs."""
    import jax

    accelerator = costs.target.accelerator
    seconds = sum(p.compilation_seconds + p.lowering_seconds for p in costs.programs.values())
    print(
        f"Compiled the tile programs for one {accelerator.kind} with JAX {jax.__version__} in {seconds:.1f} s.\n"
        f"For a tile of {costs.side}×{costs.side} input pixels, {network}, {dtype}:"
    )
    # Upscaling multiplies float32 in full precision, for which no peaks are published.
    peak_dtype = None if dtype == "float32" else dtype
    rows = [
        ("peak memory", _memory(costs.peak_memory, accelerator) + ", without the states of the image"),
        *_work(costs.flops, costs.traffic, accelerator, peak_dtype),
    ]
    if costs.cycles is not None:
        rows.append(
            ("estimated cycles", f"{_number(costs.cycles)}, {costs.cycles / costs.side**2:.0f} per pixel, by XLA")
        )
    print(_table(rows))
    print(f"  {'program':18}{'runs':>6}{'peak memory':>14}{'traffic':>12}")
    for name, program in costs.programs.items():
        print(f"  {name:18}{costs.runs[name]:6}{_bytes(program.peak_memory):>14}{_bytes(program.traffic):>12}")


def step_figures(costs: "StepCosts") -> dict[str, Any]:
    """Returns the figures of a training step for JSON."""
    return {
        **_target(costs.target),
        "batch_size": costs.batch_size,
        "updates_per_dispatch": costs.updates,
        "parameter_bytes": costs.parameters,
        "average_bytes": costs.ema,
        "optimizer_bytes": costs.optimizer,
        "image_bytes": costs.images,
        "flops_per_update": costs.flops,
        "fits": costs.program.fits(costs.target.accelerator),
        "program": _program(costs.program),
    }


def tile_figures(costs: "TileCosts") -> dict[str, Any]:
    """Returns the figures of a tile for JSON."""
    return {
        **_target(costs.target),
        "side": costs.side,
        "flops": costs.flops,
        "traffic": costs.traffic,
        "cycles": costs.cycles,
        "peak_memory": costs.peak_memory,
        "fits": costs.fits,
        "runs": costs.runs,
        "programs": {name: _program(program) for name, program in costs.programs.items()},
    }


def _target(target: "Target") -> dict[str, Any]:
    import jax

    return {
        "devices": target.name,
        "kind": target.accelerator.kind,
        "count": target.device_count,
        "memory": target.accelerator.memory,
        "usable_memory": target.accelerator.usable_memory,
        "jax": jax.__version__,
    }


def _program(costs: "ProgramCosts") -> dict[str, Any]:
    figures = {key: value for key, value in vars(costs).items() if key != "collectives"}
    collectives = {kind: collective._asdict() for kind, collective in costs.collectives.items()}
    return {**figures, "peak_memory": costs.peak_memory, "collectives": collectives}
