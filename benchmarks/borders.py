"""Measures what the two paddings of `a2f upscale --edge` do next to the border, and updates the table in a page.

python benchmarks/borders.py --data benchmark --published AAF_SD_x4/model_best.pt --table docs/upscaling.md
"""

import argparse

import numpy as np
from pages import page_with, write_between

from a2f_jax.catalog import SCALES
from a2f_jax.data import open_pairs
from a2f_jax.model import Model, load

EDGES = ("zero", "reflect")
NEAR = 2  # LR pixels


def largest_error(model: Model, edge: str, color: tuple[int, int, int]) -> float:
    """Returns the largest error, in levels of 0..255, on an image of one color."""
    image = np.full((40, 40, 3), color, np.float32)
    return float(np.abs(model.upscaler(edge=edge).upscale(image) - image[0, 0]).max())


def psnr_near_border(model: Model, edge: str, data_dir: str) -> float:
    """Returns the mean PSNR in dB of R, G and B within `NEAR` LR pixels of the border over Set14."""
    scores = []
    for pair in open_pairs("set14", scale=model.scale, data_dir=data_dir):
        error = (model.upscaler(edge=edge).upscale(pair.lr).astype(np.float64) - pair.hr) ** 2
        inner = np.zeros(error.shape[:2], bool)
        inner[NEAR * model.scale : -NEAR * model.scale, NEAR * model.scale : -NEAR * model.scale] = True
        scores.append(10 * np.log10(255**2 / error[~inner].mean()))
    return float(np.mean(scores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with Set14")
    parser.add_argument("--published", required=True, help="the authors' weights of A2F-SD ×4")
    parser.add_argument("--table", type=page_with("borders"), help="page whose table to update")
    args = parser.parse_args()
    shipped = {scale: load("a2f-sd", scale) for scale in SCALES}
    rows = ["| a2f-sd | `--edge zero` | `--edge reflect` |", "|---|---|---|"]
    for name, color in (("green", (0, 255, 0)), ("white", (255, 255, 255))):
        cells = [", ".join(f"{largest_error(m, edge, color):.2g}" for m in shipped.values()) for edge in EDGES]
        rows.append(f"| largest error, a {name} image ×2, ×3, ×4 | {' | '.join(cells)} |")
    for name, models in (
        (f"PSNR within {NEAR} pixels of the border, RGB, Set14 ×2, ×4", [shipped[2], shipped[4]]),
        ("the same with the authors' weights, ×4", [load(args.published)]),
    ):
        cells = [", ".join(f"{psnr_near_border(m, edge, args.data):.2f}" for m in models) for edge in EDGES]
        rows.append(f"| {name} | {' | '.join(f'{cell} dB' for cell in cells)} |")
    print("\n".join(rows))
    if args.table:
        write_between(args.table, "borders", "\n".join(rows))


if __name__ == "__main__":
    main()
