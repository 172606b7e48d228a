"""Compares training recipes for A2F-SD ×4 in short runs with the same number of LR pixels that differ in one setting.

    a2f data prepare open_photos --source open-photos/ --scale 4 --validation 24
    python benchmarks/recipes.py --output docs/results/recipes.json
    python benchmarks/recipes.py --output docs/results/recipes.json --only "batch 8" --table docs/weights.md

Runs whose results are already in the output file are not repeated. `--table` updates the table in a documentation page.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from pages import write_between

STEPS = 800
BASE: dict[str, object] = {
    "optimizer.learning_rate": 2e-3,
    "data.name": "open_photos",
    "data.patch_size": 24,
    "batch_size": 16,
    "steps": STEPS,
    "init": "a2f-sd-x2",
    "optimizer.warmup": 100,
    "validation_images": 24,
    "validate_every": 100 * STEPS,  # only at the end
    "checkpoint_every": 100 * STEPS,
}
RECIPES: dict[str, dict[str, object]] = {
    "base: from ×2, patches of 24×24, batch 16, 2e-3, cosine, EMA 0.999": {},
    "the same with another seed": {"seed": 1},
    "learning rate 1e-3": {"optimizer.learning_rate": 1e-3},
    "learning rate 4e-3": {"optimizer.learning_rate": 4e-3},
    "learning rate 8e-3": {"optimizer.learning_rate": 8e-3},
    "learning rate 1.6e-2": {"optimizer.learning_rate": 1.6e-2},
    "batch 8, twice the steps": {"batch_size": 8, "steps": 2 * STEPS},
    "patches of 48×48, batch 4": {"data.patch_size": 48, "batch_size": 4},
}


def train(changes: dict[str, object]) -> dict[str, float]:
    """Trains, and returns the PSNR on the held-out photographs (in dB) and the duration (in seconds)."""
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--config.{name}={value}" for name, value in {**BASE, **changes}.items()]
        start = time.perf_counter()
        subprocess.run(
            ["a2f", "train", "--config", "configs/a2f.py:sd_x4,recipe=long", "--workdir", f"{folder}/run", *options],
            check=True,
            stdout=sys.stderr,
        )
        seconds = time.perf_counter() - start
        lines = [json.loads(line) for line in pathlib.Path(folder, "run/metrics.jsonl").read_text().splitlines()]
    psnr = [line["psnr"] for line in lines if line["kind"] == "validation"][-1]
    return {"psnr": psnr, "seconds": round(seconds)}


def table(results: dict[str, dict[str, float]]) -> str:
    """Formats the results as a Markdown table, with differences from the first recipe."""
    base = results[next(iter(RECIPES))]["psnr"]
    rows = [
        f"| {name} | {results[name]['psnr']:.3f} | {results[name]['psnr'] - base:+.3f} |"
        for name in RECIPES
        if name in results
    ]
    return "\n".join(["| run | validation PSNR / dB | difference |", "|---|---:|---:|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--only", choices=RECIPES, metavar="NAME", nargs="+", default=list(RECIPES))
    parser.add_argument(
        "--table", type=pathlib.Path, help="page with the markers <!-- recipes --> and <!-- /recipes -->"
    )
    args = parser.parse_args()
    results = json.loads(args.output.read_text()) if args.output.exists() else {}
    for name, changes in RECIPES.items():
        if name in args.only and name not in results:
            print(f"{name} ...", file=sys.stderr)
            results[name] = train(changes)
            args.output.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print(table(results))
    if args.table:
        write_between(args.table, "recipes", table(results))


if __name__ == "__main__":
    main()
