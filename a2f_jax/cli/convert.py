"""`a2f convert`: weights of any kind to safetensors."""

import argparse
from collections.abc import Sequence
from typing import Any

from a2f_jax.cli.commands import WEIGHTS_HELP, add_command, add_scale, output_file


def add(commands: Any) -> None:
    """Adds `a2f convert` to the command line."""
    parser = add_command(
        commands,
        "convert",
        run,
        "convert published weights (.pt, .pth, .npz) or a training run to safetensors, without PyTorch",
        "  a2f convert model_best.pt sd_x4.safetensors\n  a2f convert runs/sd_x4 sd_x4.safetensors --overwrite\n",
    )
    parser.add_argument("source", metavar="PATH", help=WEIGHTS_HELP)
    parser.add_argument("target", metavar="FILE", help="the file to write, ending in .safetensors, also gs://...")
    add_scale(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")


def run(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Converts the weights and prints what they are."""
    target = output_file(args.target, overwrite=args.overwrite, flag="FILE", suffix=".safetensors")

    from a2f_jax.model import load, save

    model = load(args.source, args.scale)
    save(model, target)
    print(f"{target}: {model.variant} ×{model.scale}")
