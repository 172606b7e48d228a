"""Measures weights on LR images that were compressed as JPEG, beside bicubic interpolation.

    a2f data prepare open_photos --source open-photos/ --scale 4 --validation 24
    python benchmarks/photo.py --weights a2f-sd-x4 runs/photo_x4 --data benchmark --output docs/results/photo.json \
        --table docs/weights.md

The sets are Set14, whole images, and the held-out photographs of a dataset, of which the central 128×128 LR pixels are
measured as in validation. A second table has what the other weights of a scale gain over the first that are given.
`CLEAN_FROM` in `a2f_jax/upscaling/choice.py` follows from its rows for the photographs. `--table` updates both tables
in a documentation page.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pages import output_file, page_with, write_between

from a2f_jax.data import open_pairs
from a2f_jax.evaluation import lpips
from a2f_jax.evaluation.benchmark import Bicubic, Evaluable, jpeg_compressed, mean_scores
from a2f_jax.evaluation.metrics import psnr_y, ssim_y
from a2f_jax.model import load_labeled
from a2f_jax.progress import progress_bar
from a2f_jax.training.validation import center_crop

QUALITIES = (None, 95, 92, 90, 88, 86, 84, 80, 60, 40)
"""Qualities of JPEG; None stands for LR images that are not compressed."""

_SCORED = (None, 95, 90, 80, 60, 40)  # in the table of scores
_COMPARED = (95, 92, 90, 88, 86, 84, 80)  # in the table of differences, around where they change their sign

Images = Sequence[tuple[np.ndarray, np.ndarray]]


def measure(model: Evaluable, images: Images, quality: int | None, *, with_lpips: bool) -> dict[str, float]:
    """Returns the mean scores of a model on `(LR, HR)` images whose LR is compressed first."""
    scores: list[dict[str, float]] = []
    for lr, hr in images:
        sr = model.upscale(jpeg_compressed(lr, quality))
        scores.append({"psnr": psnr_y(sr, hr, model.scale), "ssim": ssim_y(sr, hr, model.scale)})
        if with_lpips:
            scores[-1]["lpips"] = lpips.lpips(sr, hr)
    return mean_scores(scores)


def _cell(scores: dict[str, Any]) -> str:
    text = f"{scores['psnr']:.2f} / {scores['ssim']:.4f}"
    return f"{text} / {scores['lpips']:.3f}" if "lpips" in scores else text


def _gain(scores: dict[str, Any], reference: dict[str, Any]) -> str:
    text = f"{scores['psnr'] - reference['psnr']:+.2f} / {scores['ssim'] - reference['ssim']:+.4f}"
    return f"{text} / {scores['lpips'] - reference['lpips']:+.3f}" if "lpips" in scores else text


def _table(rows: Mapping[tuple[str, str], Sequence[str]], qualities: Sequence[int | None]) -> str:
    heading = ["clean" if quality is None else f"JPEG {quality}" for quality in qualities]
    lines = [f"| set | weights | {' | '.join(heading)} |", f"|---|---|{'---|' * len(qualities)}"]
    return "\n".join([*lines, *(f"| {' | '.join((*names, *cells))} |" for names, cells in rows.items())])


def table(results: Iterable[dict[str, Any]]) -> str:
    """Formats results as a Markdown table with a row for each set and weights, and a column for each quality."""
    rows: dict[tuple[str, str], list[str]] = {}
    for result in results:
        if result["jpeg"] in _SCORED:
            rows.setdefault((result["set"], result["weights"]), []).append(_cell(result))
    return _table(rows, _SCORED)


def gains(results: Iterable[dict[str, Any]], references: Mapping[str, str]) -> str:
    """Formats what weights gain over their reference as such a table.

    Args:
      results: the results of all weights.
      references: for each of the weights to list, those to compare with.
    """
    found = {(result["set"], result["weights"], result["jpeg"]): result for result in results}
    rows: dict[tuple[str, str], list[str]] = {}
    for (name, label, quality), scores in found.items():
        if label in references and quality in _COMPARED:
            gain = _gain(scores, found[name, references[label], quality])
            rows.setdefault((name, label), []).append(gain)
    return _table(rows, _COMPARED)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints the table, and writes what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="+", required=True, help="weights, as for `a2f evaluate`")
    parser.add_argument("--data", required=True, help="folder that contains Set14/")
    parser.add_argument("--photographs", default="open_photos", metavar="NAME", help="prepared dataset")
    parser.add_argument("--data-dir", help="folder with the prepared dataset (default: the data cache)")
    parser.add_argument("--images", type=int, default=24, help="number of held-out photographs (default: %(default)s)")
    parser.add_argument("--lpips", action="store_true", help="also measure LPIPS (requires the extra [lpips])")
    parser.add_argument("--output", type=output_file, required=True, help="JSON file")
    parser.add_argument("--table", type=page_with("photo", "photo-gains"), help="page whose table to update")
    args = parser.parse_args(argv)

    models = load_labeled(args.weights, None)
    sets: dict[tuple[str, int], Images] = {}
    rows: dict[int, dict[str, Evaluable]] = {}
    references: dict[str, str] = {}
    for scale in sorted({model.scale for model in models.values()}):
        held_out = open_pairs(args.photographs, scale=scale, split="validation", data_dir=args.data_dir)
        set14 = open_pairs("set14", scale=scale, data_dir=args.data)
        sets["Set14", scale] = [(pair.lr, pair.hr) for pair in set14]
        sets["photographs", scale] = [center_crop(held_out[i], scale) for i in range(min(len(held_out), args.images))]
        of_scale = {label: model for label, model in models.items() if model.scale == scale}
        first, *others = of_scale
        references |= dict.fromkeys(others, first)
        rows[scale] = {f"bicubic ×{scale}": Bicubic(scale), **of_scale}
    cells = len(QUALITIES) * sum(len(rows[scale]) for _, scale in sets)
    results = []
    with progress_bar(total=cells, unit="cell", description="measuring") as bar:
        for (name, scale), images in sets.items():
            for label, model in rows[scale].items():
                for quality in QUALITIES:
                    scores = measure(model, images, quality, with_lpips=args.lpips)
                    results.append({"set": name, "weights": label, "jpeg": quality, "n": len(images), **scores})
                    bar.update()
    args.output.write_text(json.dumps(results, indent=1) + "\n")
    tables = {"photo": table(results), "photo-gains": gains(results, references)}
    print(*tables.values(), sep="\n\n")
    if args.table:
        for mark, text in tables.items():
            write_between(args.table, mark, text)


if __name__ == "__main__":
    main()
