"""`a2f average`: the average of several weights of the same network."""

import argparse
from collections.abc import Sequence
from typing import Any

from a2f_jax.cli.commands import WEIGHTS_HELP, add_command, add_scale, output_file


def add(commands: Any) -> None:
    """Adds `a2f average` to the command line."""
    parser = add_command(
        commands,
        "average",
        run,
        "average the weights of the same network, such as checkpoints of a training run",
        "  a2f average runs/sd_x4/checkpoints/* -o average.safetensors\n"
        "  a2f average runs/seed0 runs/seed1 runs/seed2 -o average.safetensors\n",
    )
    parser.add_argument("weights", nargs="+", metavar="PATH", help=f"each is {WEIGHTS_HELP}")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="the file to write, ending in .safetensors, also gs://...",
    )
    add_scale(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")


def run(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Averages the weights and prints what the result is."""
    output = output_file(args.output, overwrite=args.overwrite, suffix=".safetensors")

    from a2f_jax.buckets import is_url
    from a2f_jax.files import as_path, expanded
    from a2f_jax.model import average_labeled, load_labeled, save
    from a2f_jax.weights import name_without_folders

    weights: list[str] = []
    for name in args.weights:
        found = map(str, expanded(as_path(name))) if is_url(name) else [name]
        weights += [path for path in found if path == name or path != str(output)]  # which a pattern may match, too
    model = average_labeled(load_labeled(weights, args.scale))
    save(model, output, {"average_of": ", ".join(map(name_without_folders, weights))})
    print(f"{output}: {model.variant} ×{model.scale}, the average of {len(weights)}")
