"""Measures one network's results by the protocols of several papers, and updates the tables in docs/protocols.md.

    python benchmarks/protocols.py --data benchmark --scale 4 --weights carn-m.pth vdsr.npz model_best.pt

The benchmark set is Set5, or the one that `--dataset` names.
"""

import argparse
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from pages import write_between
from skimage.metrics import structural_similarity

from a2f_jax.catalog import BENCHMARK_SETS
from a2f_jax.data import open_pairs
from a2f_jax.data.matlab_bicubic import resize_taps
from a2f_jax.evaluation.paper import PUBLISHED
from a2f_jax.model import Model, load
from a2f_jax.models.registry import PEERS

ROOT = pathlib.Path(__file__).parents[1]


def to_luma(rgb: np.ndarray) -> np.ndarray:
    """Returns Y of MATLAB's rgb2ycbcr, not rounded, of pixels in 0..255."""
    return 16 + np.asarray(rgb, np.float64) @ (np.array([65.481, 128.553, 24.966]) / 255)


def rounded(sr: np.ndarray) -> np.ndarray:
    """Rounds and clips to 8 bits."""
    return np.clip(np.rint(sr), 0, 255)


def truncated(sr: np.ndarray) -> np.ndarray:
    """Clips to 0..255 and drops the fraction, as a conversion to bytes does."""
    return np.floor(np.clip(sr, 0, 255))


def reduced(hr: np.ndarray, scale: int) -> np.ndarray:
    """Reduces an image by MATLAB's bicubic interpolation, but keeps fractions: float32."""
    for _ in range(2):
        index, weight = resize_taps(len(hr), 1 / scale, "clamp")
        hr = np.einsum("ot,otwc->owc", weight, hr[index].astype(np.float64)).swapaxes(0, 1)
    return hr.astype(np.float32)


class Protocol(NamedTuple):
    """A way to compare a result with the truth.

    Attributes:
      luma: from the result and the truth, float and uint8 RGB, to the two images that are compared.
      border: from the scale, the pixels left out on each side.
      fractions: whether the network is given an LR image that was not rounded to 8 bits.
    """

    luma: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    border: Callable[[int], int] = lambda scale: scale
    fractions: bool = False


def of_rgb(quantize: Callable, integer: bool = False) -> Callable:
    """Returns Y of the result, whose RGB values are first quantized, and of the truth; as integers if wanted."""

    def luma(sr: np.ndarray, hr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pair = to_luma(quantize(sr)), to_luma(hr)
        return (np.rint(pair[0]), np.rint(pair[1])) if integer else pair

    return luma


def integer_luma(sr: np.ndarray, hr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns Y as integers, of a result that was never converted to 8-bit RGB."""
    return np.rint(to_luma(sr)), np.rint(to_luma(hr))


def gray_in_full_range(sr: np.ndarray, hr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the gray values in 0..255 of gray images, and Y of others."""
    if (hr == hr[..., :1]).all():
        return rounded(sr).mean(-1), hr[..., 0].astype(np.float64)
    return of_rgb(rounded)(sr, hr)


PROTOCOLS = {
    "this package": Protocol(of_rgb(rounded)),
    "RGB truncated instead of rounded": Protocol(of_rgb(truncated)),
    "Y rounded to integers": Protocol(of_rgb(rounded, integer=True)),
    "RGB truncated, Y rounded (CARN, FALSR)": Protocol(of_rgb(truncated, integer=True)),
    "Y rounded, without 8-bit RGB": Protocol(integer_luma),
    "the same, from an LR image with fractions (SRCNN, VDSR)": Protocol(integer_luma, fractions=True),
    "no border left out": Protocol(of_rgb(rounded), lambda _: 0),
    "a border of scale + 6 pixels": Protocol(of_rgb(rounded), lambda scale: scale + 6),
    "gray images as 0..255": Protocol(gray_in_full_range),
}


def score(protocol: Protocol, sr: np.ndarray, hr: np.ndarray, scale: int) -> tuple[float, float]:
    """Returns PSNR in dB and SSIM of a float result by a protocol."""
    border = protocol.border(scale)
    inside = np.s_[border : hr.shape[0] - border, border : hr.shape[1] - border]
    x, y = (image[inside] for image in protocol.luma(sr, hr))
    ssim = structural_similarity(x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255)
    return 10 * np.log10(255**2 / np.mean((x - y) ** 2)), ssim


def measure(model: Model, dataset: str, data: str) -> dict[str, tuple[float, float]]:
    """Returns the mean PSNR and SSIM over a benchmark set by each protocol."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in PROTOCOLS}
    for pair in open_pairs(dataset, scale=model.scale, data_dir=data):
        inputs = {False: pair.lr.astype(np.float32), True: reduced(pair.hr, model.scale)}
        results = {fractions: model.upscale(lr) for fractions, lr in inputs.items()}
        for name, protocol in PROTOCOLS.items():
            found[name].append(score(protocol, results[protocol.fractions], pair.hr, model.scale))
    return {name: tuple(np.mean(scores, 0)) for name, scores in found.items()}


def table(columns: dict[str, dict[str, tuple[float, float]]]) -> str:
    """Formats the scores of each network, by protocol."""
    lines = [f"| protocol | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name in dict.fromkeys(name for scores in columns.values() for name in scores):
        cells = ["{:.2f} / {:.4f}".format(*scores[name]) if name in scores else "" for scores in columns.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder that contains Set5/, Set14/, ...")
    parser.add_argument("--scale", required=True, type=int, choices=(2, 3, 4))
    parser.add_argument("--weights", required=True, nargs="+", metavar="PATH", help="weights of this scale")
    parser.add_argument("--dataset", default="set5", choices=BENCHMARK_SETS, help="default: set5")
    args = parser.parse_args()
    columns = {}
    for weights in args.weights:
        model = load(weights, args.scale)
        title = PEERS[model.variant].title if model.variant in PEERS else model.variant.upper()
        columns[title] = measure(model, args.dataset, args.data)
        if published := PUBLISHED.get((model.variant, model.scale), {}).get(args.dataset):
            columns[title]["*the slides of A2F*"] = published["psnr"], published["ssim"]
        print(table(columns), flush=True)
    write_between(ROOT / "docs/protocols.md", f"protocols-{args.dataset}-x{args.scale}", table(columns))


if __name__ == "__main__":
    main()
