"""`a2f report`."""

import argparse
from collections.abc import Sequence
from typing import Any

from a2f_jax.cli.commands import WEIGHTS_HELP, add_command, names, rectangle


def add(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "report",
        run,
        "write the paper's tables and figures, with ours beside them",
        "  a2f report\n"
        "  a2f report --weights runs/sd_x4 m_x4.pt --data benchmark --output report\n"
        "  a2f report --weights a2f-sd-x4 --compare photo.png:500,350,90,60 facade.png:20,40,120,80\n",
    )
    parser.add_argument("--output", default="report", metavar="DIR", help="where to write it (default: report)")
    parser.add_argument("--weights", nargs="+", default=[], metavar="PATH", help=f"what to measure: {WEIGHTS_HELP}")
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="prepared datasets, or the folder that holds Set5/, Set14/, ... (default: cite only)",
    )
    parser.add_argument(
        "--datasets", type=names, metavar="A,B", help="measure on these only (default: all that are there)"
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        default=[],
        type=_image_and_rectangle,
        metavar="IMAGE:X,Y,W,H",
        help="images for the visual comparison, and the part of each (default: barbara and a façade, or photographs of "
        "scikit-image)",
    )


def _image_and_rectangle(text: str) -> tuple[str, tuple[int, ...]]:
    image, _, crop = text.rpartition(":")
    try:
        return image, rectangle(crop)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form IMAGE:X,Y,W,H") from None


def run(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Does it."""
    from a2f_jax.evaluation.paper import SETS
    from a2f_jax.report.build import report

    file = report(
        args.output,
        weights=args.weights,
        data_dir=args.data,
        datasets=args.datasets or SETS,
        comparisons=dict(args.compare),
    )
    print(file)
