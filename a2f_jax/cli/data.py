"""`a2f data prepare`."""

import argparse
from collections.abc import Sequence
from typing import Any

from a2f_jax.catalog import BENCHMARK_SETS, DEFAULT_SCALE, MIN_SIZE, SCALES
from a2f_jax.cli.commands import add_command
from a2f_jax.cli.process import terminable
from a2f_jax.errors import count_of


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
        "  a2f data prepare set5 --source benchmark/              layout of SelfExSR, EDSR or BasicSR\n"
        "  a2f data prepare my_photos --source photos/            hold out a tenth of the photographs\n"
        "  a2f data prepare my_photos --source photos/ --downscale 0.7 0.5 --collages 70\n"
        "  a2f data prepare my_pairs --source pairs/              LR and HR images in pairs/LR and pairs/HR\n"
        "  a2f data prepare my_pairs --source HR/ --lr-source LR/\n",
    )
    parser.add_argument(
        "name",
        metavar="NAME",
        help=f"sample, div2k, {', '.join(BENCHMARK_SETS)}, or a new name for a folder of photographs or pairs",
    )
    parser.add_argument(
        "--scale", type=int, choices=SCALES, default=DEFAULT_SCALE, help="scale of the pairs (default: %(default)s)"
    )
    parser.add_argument(
        "--source", metavar="DIR", help="folder with the images or the official archives, also gs://..."
    )
    parser.add_argument(
        "--lr-source",
        metavar="DIR",
        help="folder with the LR images if --source has HR images only; they are matched by name, also gs://...",
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="where to store the dataset, also gs://... (default: $A2F_DATA_DIR, or a2f_jax/data in the user's cache "
        "folder)",
    )
    parser.add_argument(
        "--validation",
        type=int,
        metavar="N",
        help="hold out N photographs for validation (default: a tenth of them, at most 100)",
    )
    parser.add_argument(
        "--min-size",
        type=int,
        default=MIN_SIZE,
        metavar="N",
        help="smallest side of a photograph's LR image in pixels, at least the patch size in training "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out photographs that cannot be read or are too small"
    )
    parser.add_argument(
        "--downscale",
        type=float,
        nargs="+",
        default=(),
        metavar="FACTOR",
        help="also train on copies of the photographs that are downscaled by these factors, such as 0.7 0.5",
    )
    parser.add_argument(
        "--collages",
        type=int,
        default=0,
        metavar="N",
        help="also train on N images of 1024×1024 pixels that are drawn from parts and colors of the training "
        "photographs",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a dataset that is already prepared")


def run(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Prepares the dataset and prints its folder and the size of its splits."""
    from a2f_jax.data import prepare
    from a2f_jax.data.locations import split_sizes

    with terminable():
        folder = prepare(
            args.name,
            scale=args.scale,
            data_dir=args.data_dir,
            source=args.source,
            lr_source=args.lr_source,
            validation=args.validation,
            min_size=args.min_size,
            skip_bad=args.skip_bad,
            downscale=args.downscale,
            collages=args.collages,
            overwrite=args.overwrite,
        )
    sizes = split_sizes(folder)
    purposes = {"train": " for training", "validation": " for validation"}
    counts = ", ".join(count_of(count, "image") + purposes.get(split, "") for split, count in sizes.items())
    print(f"{args.name} ×{args.scale} is ready in {folder}: {counts}")
    if "train" in sizes and "validation" not in sizes:
        print(
            "No images are held out for validation, which `a2f train` requires: prepare the dataset again with "
            "--validation N --overwrite"
        )
