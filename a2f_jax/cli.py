"""The command `a2f`: parses, calls, prints."""

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from a2f_jax import __version__
from a2f_jax.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_EPILOG = """
a first look, with nothing to download:
  a2f data prepare sample
  a2f train --config configs/sample.py --workdir runs/first
  a2f evaluate --weights runs/first --datasets sample
  a2f upscale photo.jpg -o photo-x4.png --weights runs/first

`a2f COMMAND --help` explains each command by example.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="a2f",
        description="A2F: lightweight image super-resolution in JAX.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"a2f_jax {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run, summary: str, examples: str, to=commands) -> argparse.ArgumentParser:
        sub = to.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        return sub

    sub = command(
        "train",
        _train,
        "train a network, or go on with a run that was stopped",
        "  a2f train --config configs/sample.py --workdir runs/first\n"
        "  a2f train --config configs/a2f.py:sd_x4 --workdir runs/sd_x4\n"
        "  a2f train --config configs/a2f.py:m_x2 --workdir runs/m_x2 --config.data.name=my_photos "
        "--config.batch_size=32\n",
    )
    sub.add_argument("--config", required=True, metavar="FILE[:RUN]", help="settings; see configs/")
    sub.add_argument("--workdir", required=True, type=pathlib.Path, metavar="DIR", help="checkpoints and logs go here")
    sub.add_argument("--accept-changes", action="store_true", help="go on with a run although settings have changed")
    sub.add_argument("--profile", type=int, metavar="STEP", help="trace the computation of this step into DIR/profile")
    group = sub.add_argument_group(
        "several machines", "one process on each; TPU pods, SLURM and GKE tell --distributed all it needs"
    )
    group.add_argument("--distributed", action="store_true", help="train together with the other processes")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="of the first process")
    group.add_argument("--processes", type=int, metavar="N", help="how many there are")
    group.add_argument("--process-id", type=int, metavar="I", help="which one this is, from 0")
    sub.add_argument(
        "--config.KEY", dest="_", metavar="VALUE", help="override any setting, for instance --config.seed=1"
    )

    sub = command(
        "evaluate",
        _evaluate,
        "measure PSNR, SSIM and LPIPS on benchmark sets",
        "  a2f evaluate --weights runs/sd_x4 --data benchmark --datasets set5,set14,b100\n"
        "  a2f evaluate --weights model_best.pt --data benchmark --datasets set5 --lpips --output results\n"
        "  a2f evaluate --bicubic 4 --datasets sample\n",
    )
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument("--weights", metavar="PATH", help=_WEIGHTS_HELP)
    what.add_argument("--bicubic", type=int, choices=(2, 3, 4), metavar="SCALE", help="measure bicubic interpolation")
    sub.add_argument("--data", metavar="DIR", help="prepared datasets, or the folder that holds Set5/, Set14/, ...")
    sub.add_argument("--datasets", required=True, metavar="A,B", help="for instance set5,set14,b100,urban100,manga109")
    sub.add_argument("--lpips", action="store_true", help="measure LPIPS too (needs the extra [lpips])")
    sub.add_argument("--output", metavar="DIR", help="write results.json and results.md there")

    sub = command(
        "upscale",
        _upscale,
        "upscale images",
        "  a2f upscale photo.jpg -o photo-x4.png --weights sd_x4.safetensors\n"
        "  a2f upscale photos/ more.webp -o upscaled/ --weights runs/sd_x4 --resume --report report.json\n"
        "  a2f upscale huge.tif -o huge-x2.tif --weights sd_x2.safetensors --memory 1GB\n"
        "  a2f upscale still.png -o still-hd.png --weights sd_x4.safetensors --size 1920x1080 --ensemble\n"
        "  cat photo.jpg | a2f upscale - -o - --format PNG --weights sd_x4.safetensors > photo-x4.png\n",
    )
    sub.add_argument(
        "images", nargs="+", type=pathlib.Path, metavar="IMAGE", help="files, folders, or - for the standard input"
    )
    sub.add_argument(
        "-o", "--output", required=True, type=pathlib.Path, metavar="OUT", help="a file, a folder, or - (output)"
    )
    sub.add_argument("--weights", required=True, metavar="PATH", help=_WEIGHTS_HELP)
    size = sub.add_mutually_exclusive_group()
    size.add_argument("--scale", type=float, metavar="X", help="any factor, for instance 2.5 (default: the weights')")
    size.add_argument("--size", type=_size, metavar="WxH", help="fill this box without changing proportions")
    sub.add_argument("--ensemble", action="store_true", help="average 8 flips and transpositions: better, 8 × slower")
    sub.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="default: float32")
    sub.add_argument(
        "--format", choices=("PNG", "JPEG", "WEBP", "TIFF", "BMP", "AVIF"), type=str.upper, help="of results"
    )
    sub.add_argument("--quality", type=int, choices=range(1, 101), metavar="1..100", help="of JPEG, WebP and AVIF")
    sub.add_argument("--overwrite", action="store_true", help="replace files that exist")
    sub.add_argument("--resume", action="store_true", help="skip images whose results exist")
    sub.add_argument("--report", type=pathlib.Path, metavar="FILE", help="write what became of every image as JSON")
    sub.add_argument("--memory", metavar="2GB", help="memory to use (default: three quarters of what is free)")
    sub.add_argument("--tile", type=int, metavar="N", help="side of the tiles (default: chosen by memory and device)")
    sub.add_argument(
        "--pixel-limit", type=int, metavar="N", help="most pixels an image may claim (default: 200 million)"
    )
    sub.add_argument("--verbose", action="store_true", help="say how much was compiled")

    sub = command(
        "compare",
        _compare,
        "set bicubic interpolation, results and truth of an image side by side in a picture",
        "  a2f compare photo.png --weights runs/sd_x4 -o comparison.png\n"
        "  a2f compare barbara.png --weights sd_x4.pt m_x4.pt --crop 500,350,90,90 -o comparison.png\n",
    )
    sub.add_argument("truth", type=pathlib.Path, metavar="IMAGE", help="the truth; it is shrunk, then upscaled again")
    sub.add_argument("--weights", nargs="+", required=True, metavar="PATH", help=_WEIGHTS_HELP)
    sub.add_argument("--crop", type=_rectangle, metavar="X,Y,W,H", help="the part to show (default: the middle)")
    sub.add_argument("-o", "--output", required=True, metavar="FILE", help="the picture, for instance a .png")

    sub = command(
        "convert",
        _convert,
        "turn published PyTorch weights or a training run into safetensors, without PyTorch",
        "  a2f convert model_best.pt a2f-sd-x4.safetensors\n  a2f convert runs/sd_x4 a2f-sd-x4.safetensors\n",
    )
    sub.add_argument("source", metavar="PATH", help=_WEIGHTS_HELP)
    sub.add_argument("target", metavar="FILE", help="ends in .safetensors")

    sub = command(
        "info",
        _info,
        "show parameters and multi-adds of every variant, or what a weights file holds",
        "  a2f info\n  a2f info a2f-sd-x4.safetensors\n",
    )
    sub.add_argument("weights", nargs="?", metavar="PATH", help=_WEIGHTS_HELP)

    sub = command(
        "report",
        _report,
        "write the paper's tables and figures, with ours beside them",
        "  a2f report\n"
        "  a2f report --weights runs/sd_x4 m_x4.pt --data benchmark --output report\n"
        "  a2f report --weights runs/sd_x4 --compare photo.png:500,350,90,60 facade.png:20,40,120,80\n",
    )
    sub.add_argument("--output", default="report", metavar="DIR", help="where to write it (default: report)")
    sub.add_argument("--weights", nargs="+", default=[], metavar="PATH", help=f"what to measure: {_WEIGHTS_HELP}")
    sub.add_argument(
        "--data",
        metavar="DIR",
        help="prepared datasets, or the folder that holds Set5/, Set14/, ... (default: cite only)",
    )
    sub.add_argument("--datasets", metavar="A,B", help="measure on these only (default: all that are there)")
    sub.add_argument(
        "--compare",
        nargs="+",
        type=_image_and_rectangle,
        metavar="IMAGE:X,Y,W,H",
        help="images for the visual comparison, and the part of each (default: barbara and a façade, or photographs of "
        "scikit-image)",
    )

    data = commands.add_parser("data", help="prepare datasets", description="Datasets.")
    data_commands = data.add_subparsers(title="commands", metavar="COMMAND", required=True)
    sub = command(
        "prepare",
        _prepare,
        "read a dataset's images once and store them for training and evaluation",
        "  a2f data prepare sample\n"
        "  a2f data prepare div2k --scale 4                       downloads the official archives\n"
        "  a2f data prepare div2k --scale 4 --source archives/    has them already\n"
        "  a2f data prepare set5 --source benchmark/              SelfExSR's or the EDSR benchmark's layout\n"
        "  a2f data prepare my_photos --source photos/ --validation 24\n",
        data_commands,
    )
    sub.add_argument("name", metavar="NAME", help="sample, div2k, set5, set14, b100, urban100, manga109, or a new one")
    sub.add_argument("--scale", type=int, choices=(2, 3, 4), default=4, help="of the pairs (default: 4)")
    sub.add_argument("--source", metavar="DIR", help="folder with the images or the official archives")
    sub.add_argument(
        "--data-dir",
        metavar="DIR",
        help="where to store it (default: $A2F_DATA_DIR or ~/.cache/a2f_jax/data)",
    )
    sub.add_argument("--validation", type=int, default=0, metavar="N", help="hold out N photographs of a new dataset")
    sub.add_argument("--overwrite", action="store_true", help="prepare anew what is there")
    return parser


_WEIGHTS_HELP = "a .safetensors file, the authors' .pt, a training run's folder, or a name such as a2f-sd-x4"


def _load_config(argument: str, overrides: Sequence[str]) -> "ConfigDict":
    """Reads `FILE[:RUN]` and overrides of the form `--config.key=value`."""
    from absl import flags
    from ml_collections import config_flags

    path, colon, run = argument.partition(":")
    if not pathlib.Path(path).is_file():
        # Without a checkout, the configs that were installed.
        from a2f_jax import configs

        installed = pathlib.Path(configs.__file__).parent / pathlib.Path(path).name
        if not installed.is_file():
            raise UserError(f"there is no config file {path}: name one, for instance configs/a2f.py:sd_x4")
        argument = f"{installed}{colon}{run}"
    values = flags.FlagValues()
    argv = ["a2f", f"--config={argument}", *overrides]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        values(argv)
        return values.config
    except (flags.Error, ValueError, TypeError, AttributeError, KeyError) as error:
        # An error inside the config file arrives with its whole traceback in the message.
        reason = str(error).strip().splitlines()[-1].removeprefix("ValueError: ")
        raise UserError(f"{argument}: {reason}") from error


def _train(args: argparse.Namespace, rest: Sequence[str]) -> None:
    config = _load_config(args.config, rest)
    if args.distributed:
        import jax

        try:
            jax.distributed.initialize(args.coordinator, args.processes, args.process_id)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"the processes cannot find each other ({reason}): give --coordinator, --processes and --process-id"
            ) from error
    from a2f_jax.training.loop import train

    train(config, args.workdir, accept_changes=args.accept_changes, profile=args.profile)


def _evaluate(args: argparse.Namespace, _: Sequence[str]) -> None:
    from a2f_jax.evaluation.benchmark import Bicubic, evaluate
    from a2f_jax.evaluation.tables import terminal_table
    from a2f_jax.models.weights import load

    model = load(args.weights) if args.weights else Bicubic(args.bicubic)
    result = evaluate(
        model,
        [name.strip() for name in args.datasets.split(",")],
        data_dir=args.data,
        weights=args.weights,
        lpips=args.lpips,
        output=args.output,
    )
    print(terminal_table([result]))


def _upscale(args: argparse.Namespace, _: Sequence[str]) -> None:
    from a2f_jax.inference.compilations import count_compilations, keep_compilations
    from a2f_jax.inference.files import Options, upscale_files
    from a2f_jax.inference.memory import parse_bytes
    from a2f_jax.inference.pictures import PIXEL_LIMIT
    from a2f_jax.models.weights import load

    model = load(args.weights)
    # Another of the published scales has weights of its own, which do it better.
    if args.scale in (2, 3, 4) and args.scale != model.scale:
        raise UserError(
            f"{args.weights} upscales by {model.scale}, not by --scale {args.scale:g}: choose other weights"
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
    )
    keep_compilations()
    with count_compilations() as count:
        try:
            upscale_files(model.with_dtype(args.dtype), args.images, args.output, options, args.report)
        finally:
            if args.verbose:
                print(
                    f"a2f: {count.programs} programs compiled for all sizes, {count.cached} of them read from disk, "
                    f"in {count.seconds:.1f} s",
                    file=sys.stderr,
                )


def _size(text: str) -> tuple[int, int]:
    width, height = map(int, text.lower().split("x"))
    return width, height


def _rectangle(text: str) -> tuple[int, ...]:
    values = tuple(map(int, text.split(",")))
    if len(values) != 4:
        raise ValueError
    return values


def _image_and_rectangle(text: str) -> tuple[str, tuple[int, ...]]:
    image, _, rectangle = text.rpartition(":")
    try:
        return image, _rectangle(rectangle)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form IMAGE:X,Y,W,H") from None


def _compare(args: argparse.Namespace, _: Sequence[str]) -> None:
    from a2f_jax.data import read_rgb, write_image
    from a2f_jax.evaluation.compare import compare
    from a2f_jax.models.weights import load

    models = {pathlib.Path(path).stem: load(path) for path in args.weights}
    write_image(args.output, compare(models, read_rgb(args.truth), args.crop))
    print(args.output)


def _convert(args: argparse.Namespace, _: Sequence[str]) -> None:
    from a2f_jax.models.weights import load, save

    model = load(args.source)
    save(model, args.target)
    print(f"{args.target}: {model.variant} ×{model.scale}")


def _info(args: argparse.Namespace, _: Sequence[str]) -> None:
    from a2f_jax.models.counts import describe, overview

    if args.weights:
        from a2f_jax.models.weights import load

        print(describe(load(args.weights)))
    else:
        print(overview())


def _report(args: argparse.Namespace, _: Sequence[str]) -> None:
    from a2f_jax.evaluation.paper import SETS
    from a2f_jax.report.report import report

    file = report(
        args.output,
        weights=args.weights,
        data_dir=args.data,
        datasets=[name.strip() for name in args.datasets.split(",")] if args.datasets else SETS,
        comparisons=dict(args.compare or ()),
    )
    print(file)


def _prepare(args: argparse.Namespace, _: Sequence[str]) -> None:
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


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, or 2 after an error that the user can mend."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    strangers = [a for a in rest if args.run is not _train or not a.startswith("--config.")]
    if strangers:
        parser.error(f"unrecognised: {' '.join(strangers)}")
    try:
        args.run(args, rest)
    except UserError as error:
        print(f"a2f: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever reads our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("a2f: stopped", file=sys.stderr)
        return 130
    return 0
