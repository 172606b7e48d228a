"""Compiles training steps for TPUs and GPUs that are not there, and tabulates what they would cost per device.

    python benchmarks/accelerators.py --output docs/results/accelerators.json --table docs/accelerators.md
    python benchmarks/accelerators.py --output docs/results/accelerators.json --only a2f-m --devices v6e:2x2

Each case is compiled by `a2f train --compile-for`, which takes one to three minutes for a TPU. Cases that are already
in the output file are not repeated. `--table` updates the table in a documentation page from all cases in the file.
"""

import argparse
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from command import A2F, CONFIGS
from pages import output_file, page_with, write_between

from a2f_jax.hardware import parse_target, roofline_seconds

VARIANTS = ("a2f-sd", "a2f-l", "a2f-s", "a2f-m")
DEVICES = ("v5e:2x2", "v6e:2x2", "h100:4", "v4:2x2x1", "v5p:2x2x1")
DTYPES = ("bfloat16", "float32")
PATCHES = (4, 256)  # per device: the paper's batch of 16 on four, and enough to keep a chip busy


def compiled(variant: str, devices: str, dtype: str, patches: int) -> dict[str, Any]:
    """Returns the figures that `a2f train --compile-for --json` writes, or the reason why it cannot."""
    batch = patches * parse_target(devices).device_count
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "figures.json")
        run = f"{CONFIGS}/a2f.py:{variant.removeprefix('a2f-')}_x4"
        options = [f"--config.batch_size={batch}", f"--config.model.dtype={dtype}", "--compile-for", devices]
        command = [*A2F, "train", "--config", run, "--json", str(file), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not file.exists():
            raise SystemExit(done.stderr)
        return json.loads(file.read_text())


def row(name: str, figures: dict[str, Any]) -> str:
    """Formats one case as a row of the table."""
    variant, devices, dtype, patches = name.split()
    start = f"| {variant.upper()} | {figures.get('kind', devices)} | {dtype} | {patches} |"
    if not figures["fits"]:
        ways = ", ".join(f"`{way}`" for way in figures["ways_to_fit"])
        return f"{start} does not fit; {ways} | | | | | |"
    program, accelerator = figures["program"], parse_target(devices).accelerator
    flops, traffic = figures["flops_per_update"], program["traffic"]
    bound = roofline_seconds(accelerator, dtype, flops, traffic)
    cycles = program["cycles"]
    cells = [
        f"{program['peak_memory'] / 1e6:,.0f}",
        f"{flops / 1e9:,.0f}",
        f"{traffic / 1e6:,.0f}",
        f"{flops / traffic:,.0f}",
        f"{cycles / int(patches) / 1e3:,.0f}" if cycles else "",
        f"{1 / bound:,.0f}" if bound else "",
    ]
    return f"{start} {' | '.join(cells)} |"


def table(results: dict[str, dict[str, Any]]) -> str:
    """Formats all results as a Markdown table."""
    head = (
        "| network ×4 | device | dtype | patches per device | memory / MB | GFLOP | traffic / MB | FLOP per byte | "
        "thousand cycles per patch | roofline: steps per second |"
    )
    names = [name for name in (" ".join(case) for case in cases(VARIANTS, DEVICES)) if name in results]
    return "\n".join([head, "|---|---|---|---:|---:|---:|---:|---:|---:|---:|", *(row(n, results[n]) for n in names)])


def cases(variants: tuple[str, ...], devices: tuple[str, ...]) -> list[tuple[str, str, str, str]]:
    """Returns all cases as strings, in the order of the table."""
    return [
        (variant, device, dtype, str(patches))
        for variant, patches, device, dtype in itertools.product(variants, PATCHES, devices, DTYPES)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=output_file)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=VARIANTS, metavar="VARIANT")
    parser.add_argument("--devices", nargs="+", choices=DEVICES, default=DEVICES, metavar="DEVICES")
    parser.add_argument("--table", type=page_with("accelerators"), help="page whose table to update")
    args = parser.parse_args()
    results = json.loads(args.output.read_text()) if args.output.exists() else {}
    for variant, devices, dtype, patches in cases(tuple(args.only), tuple(args.devices)):
        name = f"{variant} {devices} {dtype} {patches}"
        if name not in results:
            print(name, file=sys.stderr)
            results[name] = compiled(variant, devices, dtype, int(patches))
            args.output.write_text(json.dumps(results, indent=2))
    print(table(results))
    if args.table:
        write_between(args.table, "accelerators", table(results))


if __name__ == "__main__":
    main()
