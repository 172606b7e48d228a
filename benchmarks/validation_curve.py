"""Plots the validation curve of a training run from its `metrics.jsonl`.

pip install '.[report]'
python benchmarks/validation_curve.py runs/sd_x4 --output docs/images/validation-curve.png
"""

import argparse
import json
import pathlib

from matplotlib.figure import Figure
from pages import output_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--output", required=True, type=output_file)
    args = parser.parse_args()
    lines = [json.loads(line) for line in (args.workdir / "metrics.jsonl").read_text().splitlines()]
    # A run that resumed from a checkpoint repeats some steps: the last record of each step counts.
    scores = {line["step"]: line["psnr"] for line in lines if line["kind"] == "validation"}
    rates = {line["step"]: line["learning_rate"] for line in lines if line["kind"] == "train"}

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(sorted(scores), [scores[step] for step in sorted(scores)], "o-", color="#0072B2", label="PSNR")
    axes.set_xlabel("step")
    axes.set_ylabel("validation PSNR / dB", color="#0072B2")
    axes.grid(color="#E4E4E4", linewidth=0.6)
    right = axes.twinx()
    right.plot(sorted(rates), [rates[step] for step in sorted(rates)], color="#8A8A8A", linewidth=1)
    right.set_ylabel("learning rate", color="#606060")
    right.set_ylim(bottom=0)
    for side in (axes, right):
        side.spines["top"].set_visible(False)
    figure.savefig(args.output, dpi=192)


if __name__ == "__main__":
    main()
