"""The command `a2f upscale`."""

import argparse
import collections
import json
import math
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from a2f_jax.catalog import DEFAULT_SCALE, FORMATS, SCALES
from a2f_jax.cli import cost_tables, selection
from a2f_jax.cli.commands import (
    add_command,
    add_memory,
    add_pixel_limit,
    byte_count,
    count,
    message_of,
    output_file,
)
from a2f_jax.cli.process import terminable
from a2f_jax.errors import UserError, count_of, shorten
from a2f_jax.upscaling.choice import CLEAN_FROM

if TYPE_CHECKING:
    from a2f_jax.hardware import Target
    from a2f_jax.upscaling.batch import Outcome
    from a2f_jax.upscaling.worklist import Worklist


_LARGEST_FACTOR = 1024


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
        "  cat photo.jpg | a2f upscale - -o - --format PNG > photo-x4.png\n"
        "  a2f upscale --compile-for h100 --dtype bfloat16\n",
    )
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="image files, folders (searched recursively, without hidden files), gs://... (also with *), or - for "
        "standard input; required, except with --compile-for",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="a file, a folder (such as out/), gs://..., or - for standard output (default: next to the image, as "
        "photo-x4.jpg)",
    )
    selection.add_arguments(parser)
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--scale",
        type=_factor,
        metavar="X",
        help=f"upscaling factor, such as 2 or 2.5 (default: the scale of the weights, or {DEFAULT_SCALE})",
    )
    size.add_argument(
        "--size",
        type=_size,
        metavar="WxH",
        help="enlarge to fit this box, keeping the aspect ratio; with several images, those already that large are "
        "skipped",
    )
    parser.add_argument(
        "--ensemble", action="store_true", help="average over 8 flips and transpositions: better, but 8× slower"
    )
    parser.add_argument(
        "--edge",
        choices=("zero", "reflect"),
        default="zero",
        help="padding at the image border: zero, as in the paper, or reflect, for flat graphics (default: zero)",
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
    parser.add_argument("--overwrite", action="store_true", help="replace existing files, the report included")
    parser.add_argument(
        "--resume", action="store_true", help="skip images whose output file exists with the right format and size"
    )
    parser.add_argument("--report", metavar="FILE", help="write the status of every image as JSON")
    add_memory(parser)
    parser.add_argument(
        "--disk",
        type=byte_count,
        metavar="SIZE",
        help="largest temporary file, for images that exceed the memory (default: 16GB, or half of the free space)",
    )
    parser.add_argument(
        "--tile",
        type=count,
        metavar="N",
        help="side of the tiles in pixels (default: chosen to suit the memory and the device)",
    )
    add_pixel_limit(parser)
    parser.add_argument("--verbose", action="store_true", help="print how each image is computed and what was compiled")
    cost_tables.add_arguments(parser, "the programs that compute a tile (the largest that fits, or --tile)")


def _factor(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not 1 < factor <= _LARGEST_FACTOR:
        raise argparse.ArgumentTypeError(f"{text} is not a number greater than 1 and at most {_LARGEST_FACTOR}")
    return factor


def _size(text: str) -> tuple[int, int]:
    width, x, height = text.lower().partition("x")
    if not x:
        raise argparse.ArgumentTypeError(f"{text} is not of the form WIDTHxHEIGHT, such as 1920x1080")
    return count(width), count(height)


def _default_output(args: argparse.Namespace, scale: int) -> str:
    from a2f_jax.buckets import is_whole_bucket
    from a2f_jax.files import expanded, is_folder, resolved
    from a2f_jax.upscaling.worklist import STDIO, WRITABLE_SUFFIXES, input_path

    image, *others = [path for image in args.images for path in expanded(input_path(image))]
    if image.name in ("", ".."):
        image = resolved(image)
    if others or image == STDIO or not image.name or is_whole_bucket(image):
        raise UserError("choose where to write: -o FOLDER for several images, -o - for standard output")
    size = "-{}x{}".format(*args.size) if args.size else f"-x{args.scale or scale:g}"
    if is_folder(image):
        output = f"{image}{size}/"
    else:
        suffix = image.suffix if image.suffix.lower() in WRITABLE_SUFFIXES else ".png"
        suffix = FORMATS[args.format].suffixes[0] if args.format else suffix
        output = str(image.with_name(image.stem + size + suffix))
    return os.path.abspath(output) if output.startswith("~") else output  # part of the name, and not the home folder


def _check_formats(args: argparse.Namespace, work: "Worklist") -> None:
    from a2f_jax.images.writing import format_of
    from a2f_jax.upscaling.worklist import STDIO

    outputs = {job.output for job in work.jobs}
    if STDIO in outputs:
        if sys.stdout.isatty():
            raise UserError("-o - writes an image, but standard output is a terminal: redirect it to a file")
        if not args.format:
            return  # that of the image
    formats = {args.format} if args.format else {format_of(output) for output in outputs}
    if args.quality and not any(FORMATS[name].quality for name in formats):
        with_quality = ", ".join(name for name, spec in FORMATS.items() if spec.quality)
        raise UserError(
            f"--quality has no effect on {' and '.join(sorted(formats))}: leave it out, or choose a --format that has "
            f"one ({with_quality})"
        )


def _is_report(path: pathlib.Path) -> bool:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "images" in content


def _report_path(args: argparse.Namespace, work: "Worklist") -> pathlib.Path:
    from a2f_jax.files import as_path, identity, resolved
    from a2f_jax.upscaling.worklist import STDIO

    if args.report == "-":
        raise UserError("--report writes a file: choose a name")
    report = as_path(args.report)
    images = [path for job in work.jobs for path in (job.image, job.output) if path != STDIO]
    if identity(report) in set(map(identity, images)):
        raise UserError(f"{report} would replace an image: choose another --report")
    files = {resolved(image) for image in images}
    if resolved(report) in {folder for file in files for folder in file.parents}:
        raise UserError(f"{report} is the folder of an image: choose another --report")
    if inside := files & {*resolved(report).parents}:
        raise UserError(f"{report} is in a folder of the name of an image, {inside.pop()}: choose another --report")
    # With --resume, the same command line runs again, and replaces the report of the interrupted run.
    overwrite = args.overwrite or (args.resume and _is_report(report))
    return output_file(args.report, overwrite=overwrite, flag="--report")


def _write_report(path: pathlib.Path, outcome: "Outcome", work: "Worklist") -> None:
    from a2f_jax.files import replacing

    images = []
    for result in outcome.results:
        entry = {
            "image": str(result.job.image),
            "output": str(result.job.output),
            "status": result.status,
            "reason": result.reason,
            "error": message_of(result.error) if result.error else None,
            "weights": result.weights,
            "width": result.width,
            "height": result.height,
            "seconds": result.seconds,
        }
        images.append({key: value for key, value in entry.items() if value is not None})
    ignored = [{"file": str(file), "reason": reason} for file, reason in work.ignored]
    content = {"images": images, "ignored": ignored, "seconds": round(outcome.seconds, 3)}
    with replacing(path) as file:
        file.write(json.dumps(content, indent=2).encode())


def _print_summary(outcome: "Outcome") -> None:
    from a2f_jax.progress import say

    done, skipped = len(outcome.with_status("done")), outcome.with_status("skipped")
    if done > 1:
        speed, idle = done / outcome.seconds, outcome.idle
        say(f"{done} images upscaled, {speed:.3g} images/s, devices idle {idle:.0%} of the time")
    used = collections.Counter(result.weights for result in outcome.with_status("done"))
    if len(used) > 1:
        say(", ".join(f"{count_of(number, 'image')} with {name}" for name, number in sorted(used.items())))
    for reason in sorted({result.reason or "" for result in skipped}):
        names = [str(result.job.image) for result in skipped if result.reason == reason]
        say(f"{count_of(len(names), 'image')} skipped because {reason}: {shorten(names)}")


def _print_costs(args: argparse.Namespace, json_path: pathlib.Path | None) -> None:
    from a2f_jax.hardware import OutOfMemory, compile_only_devices, parse_target
    from a2f_jax.models.a2f import A2F
    from a2f_jax.upscaling.tile_costs import SMALLEST_SIDE, largest_tile, tile_costs

    if args.images or args.output or args.size or args.ensemble or (args.scale and args.scale not in SCALES):
        raise UserError("--compile-for upscales no images: leave out images, -o, --size, --ensemble, and other factors")
    if args.memory or args.disk is not None:
        raise UserError("--compile-for takes the memory of the device: leave out --memory and --disk")
    target = parse_target(args.compile_for)
    compile_only_devices(target)  # before loading the weights initializes JAX
    model = selection.load_selected(args)
    network = model.inference_network
    if not isinstance(network, A2F) or network.depthwise:
        raise UserError(
            f"{selection.weights_of(args)} is {model.variant}: --compile-for knows only the tiles of A2F without "
            "depthwise projections"
        )
    cost_tables.waiting(f"the tile programs for {target.name}")
    try:
        if args.tile:
            costs = tile_costs(network, model.folded, target, args.tile)
        else:
            costs = largest_tile(network, model.folded, target)
    except OutOfMemory as error:
        raise _too_large(args.tile or SMALLEST_SIDE, target, str(error)) from error
    finally:
        cost_tables.waiting("", done=True)
    cost_tables.print_tile(costs, f"{model.variant} ×{model.scale}", args.dtype)
    if json_path:
        cost_tables.write_json(json_path, cost_tables.tile_figures(costs))
    if not costs.fits:
        raise _too_large(costs.side, target, cost_tables.shortage(costs.peak_memory, target.accelerator))


def _too_large(side: int, target: "Target", reason: str) -> UserError:
    from a2f_jax.upscaling.tile_costs import SMALLEST_SIDE

    remedy = "pass a smaller --tile" if side > SMALLEST_SIDE else "choose a device with more memory"
    return UserError(f"a tile of {side} pixels does not fit into one {target.accelerator.kind} ({reason}): {remedy}")


def run(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Runs the command.

    Args:
      args: the parsed arguments.

    Raises:
      UserError: an argument is invalid, or at least one image failed.
    """
    from a2f_jax.compilation_cache import enable_compilation_cache
    from a2f_jax.files import as_path
    from a2f_jax.images.limits import PIXEL_LIMIT
    from a2f_jax.progress import say
    from a2f_jax.upscaling.batch import Options, upscale_files
    from a2f_jax.upscaling.compilations import count_compilations
    from a2f_jax.upscaling.worklist import STDIO, UNREADABLE, list_jobs, summarize

    json_path = cost_tables.json_path(args)
    if args.compile_for is not None:
        _print_costs(args, json_path)
        return
    if not args.images:
        args.parser.error("the following arguments are required: IMAGE")
    choice = selection.choice_of(
        args,
        memory=args.memory,
        disk=args.disk,
        tile=args.tile,
        ensemble=args.ensemble,
        edge=args.edge,
        verbose=args.verbose,
    )
    options = Options(
        overwrite=args.overwrite,
        resume=args.resume,
        target=args.scale or args.size,
        format_name=args.format,
        quality=args.quality,
        pixel_limit=args.pixel_limit or PIXEL_LIMIT,
        verbose=args.verbose,
    )
    output = args.output or _default_output(args, choice.scale)
    work = list_jobs(args.images, output, args.format)
    _check_formats(args, work)
    report = _report_path(args, work) if args.report else None
    if work.ignored:
        say(f"left out: {summarize(work.ignored)}")
    if args.verbose:
        photo = f", JPEG of a quality below {CLEAN_FROM} with {choice.photo.name}" if choice.photo else ""
        say(f"upscaling with {choice.clean.name} (×{choice.scale}, {args.dtype}){photo}")
        for job in work.jobs:
            say(f"{job.image} → {job.output}")
    enable_compilation_cache()
    with terminable(), count_compilations() as compiled:
        try:
            outcome = upscale_files(
                choice,
                work,
                options,
                lambda error: None if work.single else say(message_of(error)),
            )
        finally:
            if args.verbose:
                say(
                    f"{count_of(compiled.programs, 'program')}: {compiled.programs - compiled.cached} compiled, "
                    f"{compiled.cached} read from the cache, in {compiled.seconds:.1f} s"
                )
    if report:
        _write_report(report, outcome, work)
    _print_summary(outcome)
    errors = {str(result.job.image): result.error for result in outcome.results if result.error}
    if errors and work.single:
        raise next(iter(errors.values()))
    if errors:
        raise UserError(
            f"{len(errors)} of {count_of(len(work.jobs), 'image')} failed, for the reasons above: {shorten([*errors])}"
        )
    if unreadable := [str(path) for path, reason in work.ignored if reason == UNREADABLE]:
        raise UserError(
            f"the others are upscaled, but {len(unreadable)} could not be read: {shorten(unreadable)}; check "
            "permissions and links"
        )
    if work.jobs[0].output != STDIO:
        print(work.jobs[0].output if work.single else as_path(output))
