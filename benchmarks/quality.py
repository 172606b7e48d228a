"""Measures the effect of bfloat16, the self-ensemble (8 flips and transpositions) and reflected edges on PSNR and SSIM.

python benchmarks/quality.py a2f-sd-x4 benchmark set14
"""

import dataclasses
import sys

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


def main(weights: str, data: str, dataset: str) -> None:
    model = a2f_jax.load(weights)
    upscalers = {
        "float32": model.upscaler(),
        "bfloat16": model.with_dtype("bfloat16").upscaler(),
        "ensemble": model.upscaler(ensemble=True),
        "reflected edges": model.upscaler(edge="reflect"),
    }
    print(f"| {model.variant} ×{model.scale} on {dataset} | PSNR | SSIM |\n|---|---|---|")
    for name, upscaler in upscalers.items():
        (scores,) = a2f_jax.evaluate(_Variation(name, model.scale, upscaler), [dataset], data_dir=data)
        print(f"| {name} | {scores['psnr']:.3f} | {scores['ssim']:.4f} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
