"""`a2f evaluate`: PSNR, SSIM and LPIPS on benchmark sets."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from a2f_jax.catalog import SCALES
from a2f_jax.cli.commands import WEIGHTS_HELP, add_command, add_jpeg, add_scale, names, output_folder
from a2f_jax.errors import UserError


def add(commands: Any) -> None:
    """Adds `a2f evaluate` to the command line."""
    parser = add_command(
        commands,
        "evaluate",
        run,
        "measure PSNR, SSIM and LPIPS on benchmark sets or your own images",
        "  a2f evaluate --weights a2f-sd-x4 --data benchmark --datasets set5,set14,b100\n"
        "  a2f evaluate --weights model_best.pt --data benchmark --datasets set5 --lpips --output results\n"
        "  a2f evaluate --weights a2f-sd-x4 runs/sd_x4 --bicubic 4 --datasets sample\n"
        "  a2f evaluate --weights carn-m.pth --scale 4 --data benchmark --datasets set5\n"
        "  a2f evaluate --weights a2f-sd-x4 --bicubic 4 --datasets photos/\n"
        "  a2f evaluate --weights a2f-sd-x4 --bicubic 4 --jpeg 60 --data benchmark --datasets set14\n",
    )
    parser.add_argument("--weights", nargs="+", default=[], metavar="PATH", help=f"each is {WEIGHTS_HELP}")
    add_scale(parser)
    parser.add_argument(
        "--bicubic",
        type=int,
        choices=SCALES,
        metavar="SCALE",
        help="evaluate bicubic interpolation at this scale (2, 3 or 4)",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="folder with the named datasets, prepared or as Set5/, Set14/, ..., also gs://... (default: the data "
        "cache)",
    )
    parser.add_argument(
        "--datasets",
        required=True,
        type=names,
        metavar="A,B",
        help="comma-separated names, such as set5,set14,b100,urban100,manga109, or folders of HR images, such as "
        "photos/",
    )
    parser.add_argument("--lpips", action="store_true", help="also measure LPIPS (requires the extra [lpips])")
    add_jpeg(parser)
    parser.add_argument("--output", metavar="DIR", help="folder for results.json and results.md, also gs://...")
    parser.add_argument("--overwrite", action="store_true", help="replace the results that DIR has already")


def run(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Evaluates the models and prints a table of their scores."""
    from a2f_jax.compilation_cache import enable_compilation_cache
    from a2f_jax.evaluation.benchmark import Bicubic, Evaluable, evaluate_models
    from a2f_jax.evaluation.tables import RESULT_FILES, terminal_table
    from a2f_jax.model import load_labeled

    output = None if args.output is None else output_folder(args.output, RESULT_FILES, overwrite=args.overwrite)
    models: list[tuple[Evaluable, str | None]] = [(Bicubic(args.bicubic), None)] if args.bicubic else []
    models += zip(load_labeled(args.weights, args.scale).values(), args.weights, strict=True)
    if not models:
        raise UserError("no model to evaluate: pass --weights, --bicubic, or both")
    enable_compilation_cache()
    try:
        results = evaluate_models(
            models, args.datasets, data_dir=args.data, lpips=args.lpips, jpeg=args.jpeg, output=output
        )
    except UserError as error:
        if error.parameter == "data_dir":
            error.parameter = "data"
        raise
    print(terminal_table(results, sys.stdout.encoding or "utf-8"))
