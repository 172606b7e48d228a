"""Measures weights on the photographs that they were trained on and on others, beside benchmark sets.

    a2f data prepare open_photos --source open-photos/ --scale 4 --validation 24
    python benchmarks/generalization.py --weights a2f-sd-x4 AAF_SD_x4/model_best.pt --data benchmark

Weights that gain on the former only have learned these photographs by heart: more photographs help them, more steps do
not. The central 128×128 LR pixels are measured, of every eighth photograph of the training set and of the held-out
ones, which come from the same sources, and of the wallpapers that `free_images.py` holds out. The photographs of
scikit-image come from others; with the wallpapers, the mean of these three is shown. `--table` updates the table in a
documentation page.
"""

import argparse
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
from pages import page_with, write_between

from a2f_jax.data import Pair, open_pairs
from a2f_jax.evaluation.metrics import psnr_y
from a2f_jax.model import load_labeled
from a2f_jax.progress import progress_bar
from a2f_jax.training.validation import center_crop

EVERY = 8
HELD_OUT, SCIKIT_IMAGE, WALLPAPERS = "held-out photographs", "scikit-image", "held-out wallpapers"

Images = Sequence[tuple[np.ndarray, np.ndarray]]


def _central(pairs: Iterable[Pair], scale: int) -> Images:
    return [center_crop(pair, scale) for pair in pairs]


def table(results: dict[str, dict[str, float]]) -> str:
    """Formats PSNR by weights and by images as a Markdown table."""
    columns = [*next(iter(results.values()))]
    lines = [f"| weights | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    return "\n".join(
        [*lines, *(f"| {name} | {' | '.join(f'{x:.3f}' for x in row.values())} |" for name, row in results.items())]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints the table, and writes it to a page if asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="+", required=True, help="weights of one scale, as for `a2f evaluate`")
    parser.add_argument("--photographs", default="open_photos", metavar="NAME", help="prepared dataset")
    parser.add_argument("--wallpapers", type=pathlib.Path, metavar="DIR", help="what free_images.py has held out")
    parser.add_argument("--data-dir", help="folder with the prepared dataset (default: the data cache)")
    parser.add_argument("--data", required=True, help="folder that contains Set5/ and Set14/")
    parser.add_argument("--table", type=page_with("generalization"), help="page whose table to update")
    args = parser.parse_args(argv)

    models = load_labeled(args.weights, None)
    (scale,) = {model.scale for model in models.values()}
    trained, held_out = (
        open_pairs(args.photographs, scale=scale, split=split, data_dir=args.data_dir)
        for split in ("train", "validation")
    )
    images: dict[str, Images] = {
        "training photographs": _central((trained[i] for i in range(0, len(trained), EVERY)), scale),
        HELD_OUT: _central(held_out, scale),
        SCIKIT_IMAGE: [
            (pair.lr, pair.hr)
            for split in ("train", "validation")
            for pair in open_pairs("sample", scale=scale, split=split, data_dir=args.data_dir)
        ],
    }
    if args.wallpapers:
        images[WALLPAPERS] = _central(open_pairs(args.wallpapers, scale=scale), scale)
    for name in ("Set5", "Set14"):
        images[name] = [(pair.lr, pair.hr) for pair in open_pairs(name, scale=scale, data_dir=args.data)]
    results: dict[str, dict[str, float]] = {}
    with progress_bar(total=len(images) * len(models), unit="cell", description="measuring") as bar:
        for label, model in models.items():
            for name, pairs in images.items():
                psnr = np.mean([psnr_y(model.upscale(lr), hr, scale) for lr, hr in pairs])
                row = results.setdefault(label, {})
                row[name] = float(psnr)
                if name == WALLPAPERS:  # by which weights are chosen
                    row["mean"] = float(np.mean([row[each] for each in (HELD_OUT, SCIKIT_IMAGE, WALLPAPERS)]))
                bar.update()
    print(table(results))
    if args.table:
        write_between(args.table, "generalization", table(results))


if __name__ == "__main__":
    main()
