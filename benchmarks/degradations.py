"""Draws what each degradation of `config.data.degradation="photo"` does to part of a photograph.

python benchmarks/degradations.py --output docs/images/degradations.png
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import skimage.data
from pages import output_file

from a2f_jax.configs import photo
from a2f_jax.data.degradations import degrade, downscale, gaussian_blur, gaussian_noise, poisson_noise
from a2f_jax.data.jpeg_simulation import jpeg
from a2f_jax.evaluation.panels import side_by_side
from a2f_jax.images import write_rgb
from a2f_jax.training.settings import degradation_of

SCALE = 4
CROP = (46, 22, 82, 52)  # left, top, right and bottom, in LR pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=output_file)
    args = parser.parse_args()
    hr = jnp.asarray(skimage.data.astronaut(), jnp.float32)
    normal = jax.random.normal(jax.random.key(0), (hr.shape[0] // SCALE, hr.shape[1] // SCALE, 3))

    def lr(image: jax.Array) -> jax.Array:
        return jnp.round(downscale(image, 0, scale=SCALE)).clip(0, 255)

    def blurred(ratio: float, angle: float) -> jax.Array:
        return lr(gaussian_blur(hr, 0.5 * SCALE, ratio, angle, radius=2 * SCALE))

    clean, degradation = lr(hr), degradation_of(photo.get_config(f"sd_x{SCALE}"))
    together = [degrade(hr.astype(jnp.uint8), jax.random.key(seed), degradation, SCALE) for seed in range(6)]
    rows = [
        {
            "bicubic": clean,
            "area": downscale(hr, 2, scale=SCALE),
            "blur, sigma 0.5": blurred(1.0, 0.0),
            "blur, 0.5 and 0.25": blurred(2.0, 0.6),
            "noise, sigma 4": gaussian_noise(clean, normal, 4.0),
            "gray noise, sigma 4": gaussian_noise(clean, normal[..., :1], 4.0),
        },
        {
            "Poisson noise, 4": poisson_noise(clean, normal, 4.0),
            "JPEG 95, 4:4:4": jpeg(clean, 95, False),
            "JPEG 80, 4:2:0": jpeg(clean, 80, True),
            "JPEG 60, 4:2:0": jpeg(clean, 60, True),
            "JPEG 60, 4:4:4": jpeg(clean, 60, False),
            "JPEG 40, 4:2:0": jpeg(clean, 40, True),
        },
        {f"together, key {seed}": image for seed, image in enumerate(together)},
    ]
    strips = []
    for row in rows:
        panels = [(name, np.asarray(jnp.round(image).clip(0, 255), np.uint8)) for name, image in row.items()]
        truth = np.asarray(clean, np.uint8)
        strips.append(np.asarray(side_by_side(panels, truth=truth, shave=0, crop=CROP, enlarge=5)))
    write_rgb(args.output, np.concatenate(strips))


if __name__ == "__main__":
    main()
