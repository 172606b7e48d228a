"""The command `a2f upscale`."""

import argparse
import contextlib
import math
import pathlib
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from a2f_jax.catalogue import FORMATS, SCALES
from a2f_jax.cli.commands import WEIGHTS_HELP, add_command
from a2f_jax.errors import UserError

_MODEL = "a2f-sd"
_SCALE = 4


def add(commands: Any) -> None:
    """Adds the command and its arguments to the `a2f` parser.

    Args:
      commands: the object returned by `add_subparsers`.
    """
    parser = add_command(
        commands,
        "upscale",
        run,
        "upscale images",
        "  a2f upscale photo.jpg                                      writes photo-x4.jpg\n"
        "  a2f upscale photo.jpg -o large.png --scale 2\n"
        "  a2f upscale photos/ more.webp -o upscaled/ --resume --report report.json\n"
        "  a2f upscale huge.tif -o huge-x2.tif --scale 2 --memory 1GB\n"
        "  a2f upscale still.png -o still-hd.png --size 1920x1080 --ensemble\n"
        "  a2f upscale photo.jpg -o photo-x4.png --weights runs/sd_x4\n"
        "  cat photo.jpg | a2f upscale - -o - --format PNG > photo-x4.png\n",
    )
    parser.add_argument(
        "images",
        nargs="+",
        type=_path,
        metavar="IMAGE",
        help="image files, folders (searched recursively), or - for standard input",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=pathlib.Path,
        metavar="OUT",
        help="a file, a folder, or - for standard output (default: next to the image, such as photo-x4.jpg)",
    )
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--model",
        default=_MODEL,
        help=f"weights that come with the package, as listed by `a2f models` (default: {_MODEL})",
    )
    weights.add_argument("--weights", metavar="PATH", help=f"other weights: {WEIGHTS_HELP}")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--scale",
        type=_factor,
        metavar="X",
        help=f"upscaling factor, such as 2 or 2.5 (default: the scale of the weights, or {_SCALE})",
    )
    size.add_argument("--size", type=_size, metavar="WxH", help="fit the result into this box, keeping the proportions")
    parser.add_argument(
        "--ensemble", action="store_true", help="average over 8 flips and transpositions: better, but 8× slower"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="data type of the computation (default: float32)",
    )
    parser.add_argument(
        "--format", choices=tuple(FORMATS), type=str.upper, help="output format (default: from the file name)"
    )
    parser.add_argument(
        "--quality",
        type=int,
        choices=range(1, 101),
        metavar="1..100",
        help="quality of JPEG, WebP and AVIF files (default: 95, lossless, 90)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.add_argument("--resume", action="store_true", help="skip images whose output file exists")
    parser.add_argument("--report", type=pathlib.Path, metavar="FILE", help="write the status of every image as JSON")
    parser.add_argument(
        "--memory", metavar="SIZE", help="memory to use, such as 2GB (default: three quarters of what is free)"
    )
    parser.add_argument(
        "--tile",
        type=_count,
        metavar="N",
        help="side of the tiles in pixels (default: chosen to suit the memory and the device)",
    )
    parser.add_argument(
        "--pixel-limit",
        type=_count,
        metavar="N",
        help="largest number of pixels that an image may declare (default: 200 million)",
    )
    parser.add_argument("--verbose", action="store_true", help="print how each image is computed and what was compiled")


def _path(text: str) -> pathlib.Path:
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return pathlib.Path(text)


def _factor(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not 1 < factor < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number greater than 1")
    return factor


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a positive integer")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    width, x, height = text.lower().partition("x")
    if not x:
        raise argparse.ArgumentTypeError(f"{text} is not of the form WIDTHxHEIGHT, such as 1920x1080")
    return _count(width), _count(height)


def _weights(args: argparse.Namespace) -> str:
    from a2f_jax.weights import shipped_weights

    if args.weights:
        return args.weights
    if args.model in shipped_weights():
        return args.model
    return f"{args.model}-x{next((s for s in SCALES if s >= (args.scale or _SCALE)), SCALES[-1])}"


def _output(args: argparse.Namespace, scale: int) -> pathlib.Path:
    from a2f_jax.upscaling.batch import PIPE

    if args.output:
        return args.output
    (image, *others) = args.images
    if others or image == PIPE or not image.resolve().name:
        raise UserError("choose where to write: -o FOLDER for several images, -o - for standard output")
    suffix = "-{}x{}".format(*args.size) if args.size else f"-x{args.scale or scale:g}"
    if image.is_dir():
        return image.resolve().with_name(image.resolve().name + suffix)
    if args.format:
        ending = FORMATS[args.format].suffixes[0]
    else:
        writable = any(image.suffix.lower() in form.suffixes for form in FORMATS.values())
        ending = image.suffix if writable else ".png"
    return image.with_name(image.stem + suffix + ending)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    # SIGTERM then ends the work as Ctrl-C does, so that no incomplete files are left behind.

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # Only the main thread can set handlers.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Runs the command.

    Args:
      args: the parsed arguments.

    Raises:
      UserError: an argument is invalid, or at least one image failed.
    """
    from a2f_jax.images.reading import PIXEL_LIMIT
    from a2f_jax.model import load
    from a2f_jax.upscaling.batch import PIPE, Options, upscale_files
    from a2f_jax.upscaling.compilations import count_compilations, keep_compilations
    from a2f_jax.upscaling.plan import parse_bytes

    weights = _weights(args)
    model = load(weights).with_dtype(args.dtype)
    # For each of these scales there are weights that do it better.
    if args.scale in SCALES and args.scale != model.scale:
        raise UserError(
            f"{weights} is for --scale {model.scale}, not {args.scale:g}: choose weights for ×{args.scale:g}"
        )
    options = Options(
        overwrite=args.overwrite,
        resume=args.resume,
        target=args.scale or args.size,
        form=args.format,
        quality=args.quality,
        pixel_limit=args.pixel_limit or PIXEL_LIMIT,
        memory=parse_bytes(args.memory) if args.memory else None,
        tile=args.tile,
        ensemble=args.ensemble,
        verbose=args.verbose,
    )
    output = _output(args, model.scale)
    keep_compilations()
    with _terminable(), count_compilations() as count:
        try:
            upscale_files(model.inference_network, model.folded, args.images, output, options, args.report)
        finally:
            if args.verbose:
                print(
                    f"a2f: {count.programs} programs compiled in {count.seconds:.1f} s, {count.cached} of them read "
                    "from the cache",
                    file=sys.stderr,
                )
    if output != PIPE:
        print(output)
