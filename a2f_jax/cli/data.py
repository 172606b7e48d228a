"""`a2f data prepare`."""

import argparse
from collections.abc import Sequence
from typing import Any

from a2f_jax.catalogue import BENCHMARK_SETS, SCALES
from a2f_jax.cli.commands import add_command


def add(commands: Any) -> None:
    """Adds the command."""
    data = commands.add_parser("data", help="prepare datasets", description="Datasets.")
    parser = add_command(
        data.add_subparsers(title="commands", metavar="COMMAND", required=True),
        "prepare",
        run,
        "read a dataset's images once and store them for training and evaluation",
        "  a2f data prepare sample\n"
        "  a2f data prepare div2k --scale 4                       downloads the official archives\n"
        "  a2f data prepare div2k --scale 4 --source archives/    has them already\n"
        "  a2f data prepare set5 --source benchmark/              SelfExSR's or the EDSR benchmark's layout\n"
        "  a2f data prepare my_photos --source photos/ --validation 24\n",
    )
    parser.add_argument("name", metavar="NAME", help=f"sample, div2k, {', '.join(BENCHMARK_SETS)}, or a new one")
    parser.add_argument("--scale", type=int, choices=SCALES, default=4, help="of the pairs (default: 4)")
    parser.add_argument("--source", metavar="DIR", help="folder with the images or the official archives")
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="where to store it (default: $A2F_DATA_DIR or ~/.cache/a2f_jax/data)",
    )
    parser.add_argument("--validation", type=int, default=0, metavar="N", help="hold out N of a new dataset's images")
    parser.add_argument("--overwrite", action="store_true", help="prepare anew what is there")


def run(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Does it."""
    from a2f_jax.data import prepare

    folder = prepare(
        args.name,
        scale=args.scale,
        data_dir=args.data_dir,
        source=args.source,
        validation=args.validation,
        overwrite=args.overwrite,
    )
    print(f"{args.name} ×{args.scale} is ready in {folder}")
