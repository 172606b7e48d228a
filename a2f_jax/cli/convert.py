"""`a2f convert`: weights of any kind to safetensors."""

import argparse
from collections.abc import Sequence
from typing import Any

from a2f_jax.cli.commands import WEIGHTS_HELP, add_command


def add(commands: Any) -> None:
    """Adds `a2f convert` to the command line."""
    parser = add_command(
        commands,
        "convert",
        run,
        "convert published PyTorch weights or a training run to safetensors, without PyTorch",
        "  a2f convert model_best.pt a2f-sd-x4.safetensors\n  a2f convert runs/sd_x4 a2f-sd-x4.safetensors\n",
    )
    parser.add_argument("source", metavar="PATH", help=WEIGHTS_HELP)
    parser.add_argument("target", metavar="FILE", help="the file to write, ending in .safetensors")


def run(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Converts the weights and prints what they are."""
    from a2f_jax.model import load, save

    model = load(args.source)
    save(model, args.target)
    print(f"{args.target}: {model.variant} ×{model.scale}")
