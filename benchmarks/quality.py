"""Measures the effect of bfloat16, the self-ensemble (8 flips and transpositions) and reflected edges on PSNR and SSIM.

python benchmarks/quality.py a2f-sd-x4 benchmark set14
"""

import argparse
import dataclasses

import numpy as np

import a2f_jax
from a2f_jax.upscaling.upscaler import Upscaler


@dataclasses.dataclass
class _Variation:
    variant: str
    scale: int
    upscaler: Upscaler

    def upscale(self, image: np.ndarray) -> np.ndarray:
        return self.upscaler.upscale(image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="weights of A2F, as `a2f upscale --weights` takes them")
    parser.add_argument("data", help="folder that contains the set, such as Set14/")
    parser.add_argument("dataset", help="name of a benchmark set, such as set14")
    args = parser.parse_args()
    model = a2f_jax.load(args.weights)
    upscalers = {
        "float32": model.upscaler(),
        "bfloat16": model.with_dtype("bfloat16").upscaler(),
        "ensemble": model.upscaler(ensemble=True),
        "reflected edges": model.upscaler(edge="reflect"),
    }
    print(f"| {model.variant} ×{model.scale} on {args.dataset} | PSNR | SSIM |\n|---|---|---|")
    for name, upscaler in upscalers.items():
        (scores,) = a2f_jax.evaluate(_Variation(name, model.scale, upscaler), [args.dataset], data_dir=args.data)
        print(f"| {name} | {scores['psnr']:.3f} | {scores['ssim']:.4f} |", flush=True)


if __name__ == "__main__":
    main()
