"""The entry point: the parser of all commands, and how errors are reported."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from absl import logging as absl_logging

from a2f_jax import __version__
from a2f_jax.cli import compare, convert, data, evaluate, info, models, report, train, upscale
from a2f_jax.cli.commands import message_of
from a2f_jax.errors import UserError

_EPILOG = """
getting started, with the weights that ship with the package:
  a2f upscale photo.jpg
  a2f models

training, evaluating and using a model of your own:
  a2f data prepare sample
  a2f train --config configs/sample.py --workdir runs/first
  a2f evaluate --weights runs/first --datasets sample
  a2f upscale photo.jpg -o photo-x4.png --weights runs/first

Run `a2f COMMAND --help` for the options of a command, with examples.
"""


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line with all its commands."""
    parser = argparse.ArgumentParser(
        prog="a2f",
        description="A2F: lightweight image super-resolution in JAX.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"a2f_jax {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (upscale, models, train, evaluate, compare, report, info, convert, data):
        command.add(commands)
    return parser


def _quieten_libraries() -> None:
    # Orbax logs tracebacks of errors that we report in one line, and warnings about its own internals.
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
      argv: the arguments after the program's name; by default those of the process.

    Returns:
      The exit code: 0 on success, 2 after an error that the user can fix, 130 after an interrupt (Ctrl-C).
    """
    commands = parser()
    args, rest = commands.parse_known_args(argv)
    unrecognized = [a for a in rest if args.run is not train.run or not a.startswith("--config.")]
    if unrecognized:
        commands.error(f"unrecognized arguments: {' '.join(unrecognized)}")
    _quieten_libraries()
    try:
        args.run(args, rest)
    except UserError as error:
        print(f"a2f: error: {message_of(error)}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of a pipe has closed it, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # such as a full disk; errors about a known file are reported where it is used
        print(f"a2f: error: {error.filename or 'cannot write'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("a2f: stopped", file=sys.stderr)
        return 130
    return 0
