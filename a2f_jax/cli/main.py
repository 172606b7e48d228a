"""Which commands there are, and what becomes of their errors."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from absl import logging as absl_logging

from a2f_jax import __version__
from a2f_jax.cli import compare, convert, data, evaluate, info, models, report, train, upscale
from a2f_jax.errors import UserError

_EPILOG = """
a first look, with nothing to download:
  a2f upscale photo.jpg
  a2f models

and training:
  a2f data prepare sample
  a2f train --config configs/sample.py --workdir runs/first
  a2f evaluate --weights runs/first --datasets sample
  a2f upscale photo.jpg -o photo-x4.png --weights runs/first

`a2f COMMAND --help` explains each command by example.
"""


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the whole command line."""
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
    """Orbax logs tracebacks of what we report in one line, and warnings that mean nothing to our users."""
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, or 2 after an error that the user can mend."""
    commands = parser()
    args, rest = commands.parse_known_args(argv)
    strangers = [a for a in rest if args.run is not train.run or not a.startswith("--config.")]
    if strangers:
        commands.error(f"unrecognised: {' '.join(strangers)}")
    _quieten_libraries()
    try:
        args.run(args, rest)
    except UserError as error:
        print(f"a2f: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever reads our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # such as a disk that is full; what concerns a single file is said where it is used
        print(f"a2f: error: {error.filename or 'cannot write'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("a2f: stopped", file=sys.stderr)
        return 130
    return 0
