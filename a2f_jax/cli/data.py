"""`a2f data prepare`."""

import argparse
import re
from collections.abc import Sequence
from typing import Any

from a2f_jax.catalogue import BENCHMARK_SETS, SCALES
from a2f_jax.cli.commands import add_command
from a2f_jax.errors import UserError


def add(commands: Any) -> None:
    """Adds `a2f data prepare` to the command line."""
    data = commands.add_parser("data", help="prepare datasets", description="Prepare datasets.")
    parser = add_command(
        data.add_subparsers(title="commands", metavar="COMMAND", required=True),
        "prepare",
        run,
        "prepare a dataset for training and evaluation",
        "  a2f data prepare sample\n"
        "  a2f data prepare div2k --scale 4                       download the official archives\n"
        "  a2f data prepare div2k --scale 4 --source archives/    use archives that are already there\n"
        "  a2f data prepare set5 --source benchmark/              layout of SelfExSR or of the EDSR benchmark\n"
        "  a2f data prepare my_photos --source photos/ --validation 24\n",
    )
    parser.add_argument(
        "name",
        metavar="NAME",
        help=f"sample, div2k, {', '.join(BENCHMARK_SETS)}, or a new name for a folder of photographs",
    )
    parser.add_argument("--scale", type=int, choices=SCALES, default=4, help="scale of the pairs (default: 4)")
    parser.add_argument("--source", metavar="DIR", help="folder with the images or the official archives")
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="where to store the dataset (default: $A2F_DATA_DIR, or a2f_jax/data in the user's cache folder)",
    )
    parser.add_argument(
        "--validation", type=int, default=0, metavar="N", help="hold out N photographs for validation (default: 0)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a dataset that is already prepared")


def _with_flags(message: str) -> str:
    """Replaces parameters of `prepare`, such as `data_dir=DIR`, by flags of the command line."""
    return re.sub(
        r"\b(data_dir|overwrite|source|validation)=(\S+?)(?=[:,;.)]*(?:\s|$))",
        lambda match: "--" + match[1].replace("_", "-") + ("" if match[2] == "True" else f" {match[2]}"),
        message,
    )


def run(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Prepares the dataset and prints its folder."""
    from a2f_jax.data import prepare

    try:
        folder = prepare(
            args.name,
            scale=args.scale,
            data_dir=args.data_dir,
            source=args.source,
            validation=args.validation,
            overwrite=args.overwrite,
        )
    except UserError as error:
        raise UserError(_with_flags(str(error))) from error
    print(f"{args.name} ×{args.scale} is ready in {folder}")
