"""`a2f compare`: results of several models side by side with the ground truth."""

import argparse
from collections.abc import Sequence
from typing import Any

from a2f_jax.cli.commands import WEIGHTS_HELP, add_command, add_jpeg, add_scale, output_file, rectangle
from a2f_jax.errors import UserError
from a2f_jax.files import as_path, identity


def add(commands: Any) -> None:
    """Adds `a2f compare` to the command line."""
    parser = add_command(
        commands,
        "compare",
        run,
        "compare models with each other, bicubic interpolation and the ground truth on one image",
        "  a2f compare photo.png --weights a2f-sd-x4 -o comparison.png\n"
        "  a2f compare barbara.png --weights sd_x4.pt m_x4.pt --crop 500,350,90,90 -o comparison.png\n"
        "  a2f compare photo.png --weights a2f-sd-x4 --jpeg 60 -o comparison.png\n",
    )
    parser.add_argument("truth", metavar="IMAGE", help="the ground truth, which is downscaled and upscaled again")
    parser.add_argument("--weights", nargs="+", required=True, metavar="PATH", help=WEIGHTS_HELP)
    add_scale(parser)
    add_jpeg(parser)
    parser.add_argument(
        "--crop",
        type=rectangle,
        metavar="X,Y,W,H",
        help="region to show: left, top, width and height in pixels (default: the center)",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="the image file to write, such as comparison.png, also gs://...",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")


def run(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Draws the comparison and prints the path of the image file."""
    from a2f_jax.compilation_cache import enable_compilation_cache
    from a2f_jax.evaluation.comparison import compare
    from a2f_jax.images import read_rgb, write_rgb
    from a2f_jax.images.writing import format_of
    from a2f_jax.model import load_labeled
    from a2f_jax.staging import local_copy

    output, truth = as_path(args.output), as_path(args.truth)
    if identity(output) == identity(truth):
        raise UserError(f"{output} is the input image: choose another --output")
    output_file(args.output, overwrite=args.overwrite)
    format_of(output)
    enable_compilation_cache()
    with local_copy(truth) as file:
        pixels = read_rgb(file)
    write_rgb(output, compare(load_labeled(args.weights, args.scale), pixels, args.crop, jpeg=args.jpeg))
    print(output)
