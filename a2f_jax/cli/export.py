"""`a2f export`: models as files that run without this package."""

import argparse
from collections.abc import Sequence
from typing import Any

from a2f_jax.catalog import EXPORT_FORMATS
from a2f_jax.cli.commands import WEIGHTS_HELP, add_command, add_scale, output_file


def add(commands: Any) -> None:
    """Adds `a2f export` to the command line."""
    formats = ", or ".join(f"{suffix} for {about.title}" for suffix, about in EXPORT_FORMATS.items())
    parser = add_command(
        commands,
        "export",
        run,
        "export a model to a file that runs without this package: ONNX or StableHLO, for images of any size",
        "  a2f export a2f-sd-x4 -o sd_x4.onnx                         for ONNX Runtime\n"
        "  a2f export runs/sd_x4 -o sd_x4.onnx --input uint8          images in and out, instead of floats\n"
        "  a2f export runs/sd_x4 -o sd_x4.onnx --dtype float16        half the size, for GPUs\n"
        "  a2f export carn-m.pth --scale 4 -o carn-m.onnx\n"
        "  a2f export a2f-sd-x4 -o sd_x4.stablehlo                    for JAX on TPUs, NVIDIA GPUs, and CPUs\n",
    )
    parser.add_argument("weights", metavar="WEIGHTS", help=WEIGHTS_HELP)
    parser.add_argument(
        "-o", "--output", metavar="FILE", required=True, help=f"the file to write (also gs://...): {formats}"
    )
    add_scale(parser)
    parser.add_argument(
        "--input",
        choices=("float32", "uint8"),
        default="float32",
        help="data type of the input and the output, both [N, H, W, 3], RGB in 0..255; uint8 is rounded and clipped "
        "(default: float32)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        default="float32",
        help="data type of the computation; bfloat16 only in .stablehlo (default: float32)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")


def run(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Exports the model and prints what the file contains."""
    from a2f_jax.exporting.formats import check_export, export
    from a2f_jax.files import as_path
    from a2f_jax.model import load

    check_export(as_path(args.output), args.dtype)
    target = output_file(args.output, overwrite=args.overwrite)
    model = load(args.weights, args.scale)
    export(model, target, input=args.input, dtype=args.dtype)
    print(f"{target}: {model.variant} ×{model.scale}, {args.input} [N, H, W, 3] in 0..255")
