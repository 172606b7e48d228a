"""`a2f upscale`."""

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
    """Adds the command."""
    parser = add_command(
        commands,
        "upscale",
        run,
        "upscale images",
        "  a2f upscale photo.jpg                                      makes photo-x4.jpg\n"
        "  a2f upscale photo.jpg -o large.png --scale 2\n"
        "  a2f upscale photos/ more.webp -o upscaled/ --resume --report report.json\n"
        "  a2f upscale huge.tif -o huge-x2.tif --scale 2 --memory 1GB\n"
        "  a2f upscale still.png -o still-hd.png --size 1920x1080 --ensemble\n"
        "  a2f upscale photo.jpg -o photo-x4.png --weights runs/sd_x4\n"
        "  cat photo.jpg | a2f upscale - -o - --format PNG > photo-x4.png\n",
    )
    parser.add_argument(
        "images", nargs="+", type=_path, metavar="IMAGE", help="files, folders, or - for the standard input"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=pathlib.Path,
        metavar="OUT",
        help="a file, a folder, or - for the standard output (default: beside the image, named photo-x4.jpg)",
    )
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--model", default=_MODEL, help=f"weights of the package, see `a2f models` (default: {_MODEL})"
    )
    weights.add_argument("--weights", metavar="PATH", help=f"other weights: {WEIGHTS_HELP}")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--scale", type=_factor, metavar="X", help=f"any factor, for instance 2.5 (default: the weights', or {_SCALE})"
    )
    size.add_argument("--size", type=_size, metavar="WxH", help="fill this box without changing proportions")
    parser.add_argument("--ensemble", action="store_true", help="average 8 flips and transpositions: better, 8× slower")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="default: float32")
    parser.add_argument("--format", choices=tuple(FORMATS), type=str.upper, help="of results")
    parser.add_argument("--quality", type=int, choices=range(1, 101), metavar="1..100", help="of JPEG, WebP and AVIF")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.add_argument("--resume", action="store_true", help="skip images whose results exist")
    parser.add_argument("--report", type=pathlib.Path, metavar="FILE", help="write what became of every image as JSON")
    parser.add_argument("--memory", metavar="2GB", help="memory to use (default: three quarters of what is free)")
    parser.add_argument("--tile", type=_count, metavar="N", help="side of the tiles (default: by memory and device)")
    parser.add_argument(
        "--pixel-limit", type=_count, metavar="N", help="most pixels an image may claim (default: 200 million)"
    )
    parser.add_argument("--verbose", action="store_true", help="say how images are computed and what was compiled")


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
        raise argparse.ArgumentTypeError(f"{text} is not a number above 1")
    return factor


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    width, x, height = text.lower().partition("x")
    if not x:
        raise argparse.ArgumentTypeError(f"{text} is not of the form 1920x1080")
    return _count(width), _count(height)


def _weights(args: argparse.Namespace) -> str:
    """Which weights to take: of the package's those of the next larger scale, unless others are named."""
    from a2f_jax.weights import shipped_weights

    if args.weights:
        return args.weights
    if args.model in shipped_weights():
        return args.model
    return f"{args.model}-x{next((s for s in SCALES if s >= (args.scale or _SCALE)), SCALES[-1])}"


def _output(args: argparse.Namespace, scale: int) -> pathlib.Path:
    """Where the result of one image, or of one folder, goes if the user does not say."""
    from a2f_jax.upscaling.batch import PIPE

    if args.output:
        return args.output
    (image, *others) = args.images
    if others or image == PIPE or not image.resolve().name:
        raise UserError("name where the results shall go: -o FOLDER for several images, -o - for the standard output")
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
    """Makes SIGTERM end the work as Ctrl-C does, so that no half-written file stays."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread, which alone may
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Does it."""
    from a2f_jax.images.reading import PIXEL_LIMIT
    from a2f_jax.model import load
    from a2f_jax.upscaling.batch import PIPE, Options, upscale_files
    from a2f_jax.upscaling.compilations import count_compilations, keep_compilations
    from a2f_jax.upscaling.plan import parse_bytes

    weights = _weights(args)
    model = load(weights).with_dtype(args.dtype)
    # Another of the published scales has weights of its own, which do it better.
    if args.scale in SCALES and args.scale != model.scale:
        raise UserError(f"{weights} upscales by {model.scale}, not by --scale {args.scale:g}: choose other weights")
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
                    f"a2f: {count.programs} programs compiled for all sizes, {count.cached} of them read from disk, "
                    f"in {count.seconds:.1f} s",
                    file=sys.stderr,
                )
    if output != PIPE:
        print(output)
