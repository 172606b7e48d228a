"""Measures weights on LR images that were compressed as JPEG, beside bicubic interpolation.

    a2f data prepare open_photos --source open-photos/ --scale 4 --validation 24
    python benchmarks/photo.py --weights a2f-sd-x4 runs/photo_x4 --data benchmark --output docs/results/photo.json \
        --table docs/weights.md

The sets are Set14, whole images, and the held-out photographs of a dataset, of which the central 128×128 LR pixels are
measured as in validation. `--table` updates the table in a documentation page.
"""

import argparse
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pages import write_between

from a2f_jax.data import open_pairs
from a2f_jax.evaluation import lpips
from a2f_jax.evaluation.benchmark import Bicubic, Evaluable, jpeg_compressed
from a2f_jax.evaluation.metrics import psnr_y, ssim_y
from a2f_jax.model import load_labeled
from a2f_jax.progress import progress_bar
from a2f_jax.training.validation import center_crop

QUALITIES = (None, 95, 90, 80, 60, 40)
"""Qualities of JPEG; None stands for LR images that are not compressed."""

Images = Sequence[tuple[np.ndarray, np.ndarray]]


def measure(model: Evaluable, images: Images, quality: int | None, *, with_lpips: bool) -> dict[str, float]:
    """Returns the mean scores of a model on `(LR, HR)` images whose LR is compressed first."""
    scores: dict[str, list[float]] = {"psnr": [], "ssim": []}
    for lr, hr in images:
        sr = model.upscale(jpeg_compressed(lr, quality))
        scores["psnr"].append(psnr_y(sr, hr, model.scale))
        scores["ssim"].append(ssim_y(sr, hr, model.scale))
        if with_lpips:
            scores.setdefault("lpips", []).append(lpips.lpips(sr, hr))
    return {metric: float(np.mean(values)) for metric, values in scores.items()}


def _cell(scores: dict[str, Any]) -> str:
    text = f"{scores['psnr']:.2f} / {scores['ssim']:.4f}"
    return f"{text} / {scores['lpips']:.3f}" if "lpips" in scores else text


def table(results: Iterable[dict[str, Any]]) -> str:
    """Formats results as a Markdown table with a row for each set and weights, and a column for each quality."""
    rows: dict[tuple[str, str], list[str]] = {}
    for result in results:
        rows.setdefault((result["set"], result["weights"]), []).append(_cell(result))
    heading = ["clean" if quality is None else f"JPEG {quality}" for quality in QUALITIES]
    lines = [f"| set | weights | {' | '.join(heading)} |", f"|---|---|{'---|' * len(QUALITIES)}"]
    return "\n".join([*lines, *(f"| {' | '.join((*names, *cells))} |" for names, cells in rows.items())])


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints the table, and writes what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="+", required=True, help="weights of one scale, as for `a2f evaluate`")
    parser.add_argument("--data", required=True, help="folder that contains Set14/")
    parser.add_argument("--photographs", default="open_photos", metavar="NAME", help="prepared dataset")
    parser.add_argument("--data-dir", help="folder with the prepared dataset (default: the data cache)")
    parser.add_argument("--images", type=int, default=24, help="number of held-out photographs (default: %(default)s)")
    parser.add_argument("--lpips", action="store_true", help="also measure LPIPS (requires the extra [lpips])")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="JSON file")
    parser.add_argument("--table", type=pathlib.Path, help="page whose table to update")
    args = parser.parse_args(argv)

    models = load_labeled(args.weights, None)
    (scale,) = {model.scale for model in models.values()}
    held_out = open_pairs(args.photographs, scale=scale, split="validation", data_dir=args.data_dir)
    sets: dict[str, Images] = {
        "Set14": [(pair.lr, pair.hr) for pair in open_pairs("set14", scale=scale, data_dir=args.data)],
        "photographs": [center_crop(held_out[i], scale) for i in range(min(len(held_out), args.images))],
    }
    rows: dict[str, Evaluable] = {f"bicubic ×{scale}": Bicubic(scale), **models}
    results = []
    with progress_bar(total=len(sets) * len(rows) * len(QUALITIES), unit="cell", description="measuring") as bar:
        for name, images in sets.items():
            for label, model in rows.items():
                for quality in QUALITIES:
                    scores = measure(model, images, quality, with_lpips=args.lpips)
                    results.append({"set": name, "weights": label, "jpeg": quality, "n": len(images), **scores})
                    bar.update()
    args.output.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))
    if args.table:
        write_between(args.table, "photo", table(results))


if __name__ == "__main__":
    main()
