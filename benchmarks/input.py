"""Measures how fast the host extracts patches, and the share of a training step that is spent waiting for them.

    python benchmarks/input.py
    python benchmarks/input.py --name div2k --data-dir ~/.cache/a2f_jax/data

The step of the accelerator is simulated by a sleep, which leaves the host idle. The results are printed as a table and
written as JSON.
"""

import argparse
import contextlib
import json
import os
import platform
import shlex
import sys
import time

from pages import output_file

from a2f_jax.data import Patches, open_cache

STEPS = 2000


def patches_per_second(patches: Patches, steps: int) -> float:
    start = time.perf_counter()
    for step in range(steps):
        patches.batch(step)
    return steps * len(patches.rows) / (time.perf_counter() - start)


def waiting_share(patches: Patches, steps: int, step_seconds: float) -> float:
    """Returns the share of the time, 0..1, that a consumer of one batch per step spends waiting."""
    waiting = 0.0
    with contextlib.closing(patches.prefetch(0)) as batches:
        next(batches)
        start = time.perf_counter()
        for _ in range(steps):
            time.sleep(step_seconds)
            asked = time.perf_counter()
            next(batches)
            waiting += time.perf_counter() - asked
        return waiting / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="sample", help="name of a prepared dataset (default: sample)")
    parser.add_argument("--data-dir", help="folder with the prepared datasets (default: the data cache)")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--patch-size", type=int, default=48, help="side of a patch in LR pixels (default: 48)")
    parser.add_argument(
        "--step-ms", type=float, default=2.0, help="duration of the simulated step in milliseconds (default: 2)"
    )
    parser.add_argument("--output", type=output_file, default="benchmarks/results/input.json")
    args = parser.parse_args()

    cache = open_cache(args.name, scale=args.scale, data_dir=args.data_dir)
    patches = Patches(cache, seed=0, batch_size=args.batch_size, patch_size=args.patch_size)
    patches_per_second(patches, 100)  # loads the pages of the cache into memory
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "dataset": args.name,
        "images": len(cache.names),
        "hr_megabytes": round(cache.hr.nbytes / 1e6),
        "scale": args.scale,
        "batch_size": args.batch_size,
        "patch_size": args.patch_size,
        "patches_per_second": round(patches_per_second(patches, STEPS)),
        "step_ms": args.step_ms,
        "waiting_percent": round(100 * waiting_share(patches, STEPS, args.step_ms / 1e3), 2),
        "machine": f"{os.cpu_count()} × {platform.processor() or platform.machine()}",
        "load": round(os.getloadavg()[0], 1),
    }
    for key, value in result.items():
        print(f"{key:20} {value}")
    args.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
