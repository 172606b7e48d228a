"""Compiles the training step of A2F-SD ×4 for TPUs with and without packed rows, and compares XLA's estimates.

    python benchmarks/packing.py --output docs/results/packing.json --table docs/accelerators.md

Each case takes one to three minutes. Cases that are already in the output file are not repeated.
"""

import argparse
import json
import sys
from unittest import mock

from pages import output_file, page_with, write_between

from a2f_jax.configs import a2f
from a2f_jax.hardware import parse_target
from a2f_jax.training.step_costs import step_costs

# Devices, dtype, patches per device.
CASES = [
    ("v5e:2x2", "bfloat16", 4),
    ("v6e:2x2", "bfloat16", 4),
    ("v5e:2x2", "float32", 4),
    ("v5e:2x2", "bfloat16", 8),
    ("v5e:2x2", "bfloat16", 16),
    ("v5e:2x2", "bfloat16", 32),
]
FORMS = {"direct": 1, "packed": 8}


def compiled(devices: str, dtype: str, patches: int, pixels: int) -> dict[str, float]:
    """Returns XLA's estimates for a step in which `pixels` are packed."""
    target = parse_target(devices)
    config = a2f.get_config("sd_x4")
    config.batch_size, config.model.dtype = patches * target.device_count, dtype
    with mock.patch("a2f_jax.training.settings.pixels_per_pack", lambda *_: pixels):
        program = step_costs(config, target).program
    return {"cycles": (program.cycles or 0) / patches, "bytes": program.bytes_accessed or 0}


def table(results: dict[str, dict[str, float]]) -> str:
    """Formats the results as a Markdown table."""
    lines = [
        "| device | dtype | patches per chip | thousand cycles per patch: direct | packed | ratio "
        "| MB accessed: direct | packed | ratio |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for devices, dtype, patches in CASES:
        names = [f"{devices} {dtype} {patches} {form}" for form in FORMS]
        if not all(name in results for name in names):
            continue
        direct, packed = (results[name] for name in names)
        cells = []
        for key, unit in (("cycles", 1e3), ("bytes", 1e6)):
            cells += [f"{x[key] / unit:,.0f}" for x in (direct, packed)] + [f"{packed[key] / direct[key]:.2f}"]
        lines.append(f"| {parse_target(devices).accelerator.kind} | {dtype} | {patches} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=output_file)
    parser.add_argument("--table", type=page_with("packing"), help="page whose table to update")
    args = parser.parse_args()
    results = json.loads(args.output.read_text()) if args.output.exists() else {}
    for devices, dtype, patches in CASES:
        for form, pixels in FORMS.items():
            name = f"{devices} {dtype} {patches} {form}"
            if name not in results:
                print(name, file=sys.stderr)
                results[name] = compiled(devices, dtype, patches, pixels)
                args.output.write_text(json.dumps(results, indent=2))
    print(table(results))
    if args.table:
        write_between(args.table, "packing", table(results))


if __name__ == "__main__":
    main()
