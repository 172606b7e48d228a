"""`a2f report`: the tables and figures of the paper, with measured results."""

import argparse
from collections.abc import Sequence
from typing import Any

from a2f_jax.cli.commands import WEIGHTS_HELP, add_command, names, output_folder, rectangle
from a2f_jax.errors import UserError


def add(commands: Any) -> None:
    """Adds `a2f report` to the command line."""
    parser = add_command(
        commands,
        "report",
        run,
        "write the tables and figures of the paper, with measured results next to the published ones",
        "  a2f report\n"
        "  a2f report --weights runs/sd_x4 m_x4.pt --data benchmark --output report\n"
        "  a2f report --weights a2f-sd-x4 --compare photo.png:500,350,90,60 facade.png:20,40,120,80\n",
    )
    parser.add_argument(
        "--output", default="report", metavar="DIR", help="folder for the report, also gs://... (default: report)"
    )
    parser.add_argument("--weights", nargs="+", default=[], metavar="PATH", help=f"weights to measure: {WEIGHTS_HELP}")
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="folder with prepared datasets, or with Set5/, Set14/, ..., also gs://... (default: measure no benchmark "
        "scores)",
    )
    parser.add_argument(
        "--datasets", type=names, metavar="A,B", help="benchmark sets to measure (default: all that are available)"
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        default=[],
        type=_image_and_rectangle,
        metavar="IMAGE:X,Y,W,H",
        help="images for the visual comparison, each with the region to enlarge: left, top, width and height in pixels "
        "(default: barbara and a façade, or photographs from scikit-image)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the report that DIR has already")


def _image_and_rectangle(text: str) -> tuple[str, tuple[int, ...]]:
    image, _, crop = text.rpartition(":")
    try:
        return image, rectangle(crop)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} does not have the form IMAGE:X,Y,W,H") from None


def run(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Writes the report and prints the path of its HTML file."""
    from a2f_jax.compilation_cache import enable_compilation_cache
    from a2f_jax.evaluation.paper import SETS
    from a2f_jax.files import as_path, check_writable, is_folder
    from a2f_jax.report.build import REPORT_FILES, is_incomplete, report

    if args.datasets and not args.data:
        raise UserError("datasets are measured only with the folder that contains them", parameter="data")
    check_writable(as_path(args.output))  # first, because without permission, a bucket does not tell what there is
    replaceable = args.overwrite or is_incomplete(as_path(args.output))
    output = output_folder(args.output, REPORT_FILES, overwrite=replaceable)
    if is_folder(output / "figures") and not replaceable:
        raise UserError(f"{output / 'figures'} exists: choose another --output or pass --overwrite")
    enable_compilation_cache()
    file = report(
        output,
        weights=args.weights,
        data_dir=args.data,
        datasets=args.datasets or SETS,
        comparisons=args.compare,
    )
    print(file)
