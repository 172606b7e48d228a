"""Compares training recipes for A2F-SD ×4 in short runs with the same number of LR pixels that differ in one setting.

A few are repeated with five times as many.

They start from random values. The base uses Muon with a learning rate of 2e-2, Adam with 2e-3 for the parameters that
Muon leaves to it, a momentum of 0.95, an average of the weights with decay 0.998, patches of 24×24, batches of 16, and
the L1 loss.

    a2f data prepare open_photos --source open-photos/ --scale 4 --validation 24
    python benchmarks/recipes.py --output docs/results/recipes.json
    python benchmarks/recipes.py --output docs/results/recipes.json --only "momentum 0.9" --table docs/training-runs.md

Runs whose results are already in the output file are not repeated. `--table` updates the table in a documentation page.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

from command import A2F, CONFIGS
from pages import output_file, page_with, write_between

STEPS = 1000
LONGER = "5,000 steps"
BASE: dict[str, object] = {
    "loss": "l1",
    "optimizer.name": "muon",
    "optimizer.learning_rate": 2e-2,
    "optimizer.adam_factor": 0.1,
    "optimizer.warmup": 100,
    "ema_decay": 0.998,
    "data.name": "open_photos",
    "data.patch_size": 24,
    "batch_size": 16,
    "steps": STEPS,
    "validation_images": 24,
    "validate_every": 100 * STEPS,  # only at the end
    "checkpoint_every": 100 * STEPS,
}
RECIPES: dict[str, dict[str, object]] = {
    "base": {},
    "base, another seed": {"seed": 1},
    "Adam's part 2e-2": {"optimizer.adam_factor": 1.0},
    "Adam's part 2e-2, another seed": {"optimizer.adam_factor": 1.0, "seed": 1},
    "Adam's part 4e-4": {"optimizer.adam_factor": 0.02},
    "Muon 1e-2": {"optimizer.learning_rate": 1e-2, "optimizer.adam_factor": 0.2},
    "Muon 4e-2": {"optimizer.learning_rate": 4e-2, "optimizer.adam_factor": 0.05},
    "momentum 0.9": {"optimizer.momentum": 0.9},
    "average with decay 0.99": {"ema_decay": 0.99},
    "average with decay 0.999": {"ema_decay": 0.999},
    "patches of 32×32, batch 9": {"data.patch_size": 32, "batch_size": 9},
    "patches of 48×48, batch 4": {"data.patch_size": 48, "batch_size": 4},
    "batch 8, twice the steps": {"batch_size": 8, "steps": 2 * STEPS},
    "loss `charbonnier`": {"loss": "charbonnier"},
    "loss `fft`": {"loss": "fft"},
    "loss `fft`, another seed": {"loss": "fft", "seed": 1},
    "Adam 5e-3": {"optimizer.name": "adam", "optimizer.learning_rate": 5e-3},
    LONGER: {"steps": 5 * STEPS},
    f"{LONGER}, loss `fft`": {"steps": 5 * STEPS, "loss": "fft"},
    f"{LONGER}, Adam 5e-3": {"steps": 5 * STEPS, "optimizer.name": "adam", "optimizer.learning_rate": 5e-3},
}


def train(changes: dict[str, object]) -> float:
    """Trains, and returns the PSNR on the held-out photographs in dB."""
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--config.{name}={value}" for name, value in {**BASE, **changes}.items()]
        subprocess.run(
            [*A2F, "train", "--config", f"{CONFIGS}/a2f.py:sd_x4,recipe=long", "--workdir", f"{folder}/run", *options],
            check=True,
            stdout=sys.stderr,
        )
        lines = [json.loads(line) for line in pathlib.Path(folder, "run/metrics.jsonl").read_text().splitlines()]
    return [line["psnr"] for line in lines if line["kind"] == "validation"][-1]


def table(results: dict[str, float]) -> str:
    """Formats the results as a Markdown table, with differences from the base, or from that of 5,000 steps."""
    rows = []
    for name in filter(results.get, RECIPES):
        base = results[LONGER if name.startswith(LONGER) else "base"]
        rows.append(f"| {name} | {results[name]:.3f} | {results[name] - base:+.3f} |")
    return "\n".join(["| run | validation PSNR / dB | difference |", "|---|---:|---:|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=output_file)
    parser.add_argument("--only", choices=RECIPES, metavar="NAME", nargs="+", default=list(RECIPES))
    parser.add_argument("--table", type=page_with("recipes"), help="page whose table to update")
    args = parser.parse_args()
    results = json.loads(args.output.read_text()) if args.output.exists() else {}
    wanted = {"base", *args.only, *(LONGER for name in args.only if name.startswith(LONGER))}
    for name, changes in RECIPES.items():
        if name in wanted and name not in results:
            print(f"{name} ...", file=sys.stderr)
            results[name] = train(changes)
            args.output.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print(table(results))
    if args.table:
        write_between(args.table, "recipes", table(results))


if __name__ == "__main__":
    main()
