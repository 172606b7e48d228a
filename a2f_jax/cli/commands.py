"""Argument types, help texts and set-up that several commands share."""

import argparse
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from a2f_jax.catalog import SCALES
from a2f_jax.errors import UserError
from a2f_jax.files import as_path, check_file_writable, check_writable, exists, resolved

WEIGHTS_HELP = (
    "a .safetensors file, a .pt, .pth or .npz file with weights that a network's authors published, a training run's "
    "folder (both also gs://...), or a name such as a2f-sd-x4"
)

Run = Callable[[argparse.Namespace, Sequence[str]], int | None]
"""Runs a command, given its parsed arguments and the arguments that its parser does not know.

It returns the exit code, or None for 0.
"""


def add_command(commands: Any, name: str, run: Run, summary: str, examples: str) -> argparse.ArgumentParser:
    """Adds a command whose help ends with examples.

    Args:
      commands: the object that `add_subparsers` returned.
      name: the name of the command.
      run: the function that runs it.
      summary: one line that says what it does, without initial capital and period.
      examples: indented lines.

    Returns:
      The parser of the command, to which its arguments are added.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, parser=parser)
    return parser


def add_scale(parser: argparse.ArgumentParser) -> None:
    """Adds `--scale`, for weights that do not tell their scale."""
    parser.add_argument(
        "--scale",
        type=int,
        choices=SCALES,
        metavar="SCALE",
        help="scale of the weights (2, 3 or 4), for published weights that serve several scales or do not tell theirs",
    )


def add_jpeg(parser: argparse.ArgumentParser) -> None:
    """Adds `--jpeg`, for the commands that make or read LR images."""
    parser.add_argument(
        "--jpeg",
        type=int,
        choices=range(1, 101),
        metavar="1..100",
        help="save the LR images as JPEG with this quality and 4:2:0 chroma before upscaling them",
    )


def message_of(error: UserError) -> str:
    """Returns the message of an error, followed by the flag that remedies it if there is one."""
    return f"{error} (--{error.parameter.replace('_', '-')})" if error.parameter else str(error)


def output_file(text: str, *, overwrite: bool | None, flag: str = "--output", suffix: str = "") -> pathlib.Path:
    """Returns the path of a file to write, after checking, before the work, that it can be and that nothing is lost.

    Args:
      text: the path as passed by the user.
      overwrite: whether an existing file may be replaced, or None if the command has no `--overwrite`.
      flag: what the command line calls the file.
      suffix: what its name must end in.

    Raises:
      UserError: it is a folder, exists, has another suffix, cannot be written, or is among the checkpoints of a run.
    """
    path = as_path(text)
    if suffix and path.suffix != suffix:
        raise UserError(f"the name of {path} must end in {suffix}: choose another {flag}")
    check_file_writable(path)
    _refuse_among_checkpoints(path, flag)
    _refuse_existing(path, overwrite, flag)
    return path


def output_folder(text: str, names: Sequence[str], *, overwrite: bool, flag: str = "--output") -> pathlib.Path:
    """Returns the path of a folder to write files to, after the checks of `output_file`.

    Args:
      text: the path as passed by the user.
      names: what will be written there.
      overwrite: whether existing files of these names may be replaced.
      flag: what the command line calls the folder.

    Raises:
      UserError: one of the files exists, is a folder, or cannot be written, or the folder is among the checkpoints of
        a run.
    """
    folder = as_path(text)
    check_writable(folder)
    _refuse_among_checkpoints(folder, flag)
    for name in names:
        check_file_writable(folder / name)
        _refuse_existing(folder / name, overwrite, flag)
    return folder


def _refuse_existing(path: pathlib.Path, overwrite: bool | None, flag: str) -> None:
    if exists(path) and not overwrite:
        remedy = "" if overwrite is None else " or pass --overwrite"
        raise UserError(f"{path} exists: choose another {flag}{remedy}")


def _refuse_among_checkpoints(path: pathlib.Path, flag: str) -> None:
    # A later `checkpoints/*` would include the file, and a run deletes its old checkpoints with all that is in them.
    for folder in (resolved(path), *resolved(path).parents):
        if folder.name == "checkpoints" and any(folder.glob("*/params")):
            raise UserError(f"{path} is among the checkpoints of a training run: choose another {flag}")


def byte_count(text: str) -> int:
    """Parses a size in bytes, such as `2GB`."""
    from a2f_jax.upscaling.plan import parse_bytes

    try:
        return parse_bytes(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def count(text: str) -> int:
    """Parses a positive integer."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a positive integer")
    return int(text)


def names(text: str) -> list[str]:
    """Parses a comma-separated list."""
    values = [name.strip() for name in text.split(",")]
    if "" in values:
        raise argparse.ArgumentTypeError(f"{text!r} contains an empty name")
    return values


def rectangle(text: str) -> tuple[int, ...]:
    """Parses `X,Y,W,H`, the left and top edge, width and height of a rectangle in pixels."""
    try:
        left, top, width, height = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} does not have the form X,Y,W,H, for example 20,40,120,80") from None
    return left, top, width, height


def add_memory(parser: argparse.ArgumentParser) -> None:
    """Adds `--memory`, for the commands that upscale."""
    parser.add_argument(
        "--memory",
        type=byte_count,
        metavar="SIZE",
        help="memory to use, such as 2GB (default: three quarters of what is free)",
    )


def add_pixel_limit(parser: argparse.ArgumentParser) -> None:
    """Adds `--pixel-limit`, for the commands that read images of users."""
    parser.add_argument(
        "--pixel-limit",
        type=count,
        metavar="N",
        help="largest number of pixels that an image may declare (default: 200 million)",
    )
