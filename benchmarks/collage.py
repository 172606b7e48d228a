"""Draws a part of a collage of scikit-image's photographs, for the documentation.

python benchmarks/collage.py docs/images/collage.jpg
"""

import argparse
import pathlib

import numpy as np
from PIL import Image

from a2f_jax.data.collages import draw_collage
from a2f_jax.data.sources import sample
from a2f_jax.images import read_rgb

HEIGHT, WIDTH = 480, 960


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=pathlib.Path, help="JPEG file to write")
    args = parser.parse_args()
    photographs = [read_rgb(source.hr) for source in sample()["train"]]
    collage = draw_collage(photographs, np.random.default_rng(0))
    Image.fromarray(collage[:HEIGHT, :WIDTH]).save(args.output, "JPEG", quality=88)


if __name__ == "__main__":
    main()
