"""What the commands share."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

WEIGHTS_HELP = "a .safetensors file, the authors' .pt, a training run's folder, or a name such as a2f-sd-x4"

Run = Callable[[argparse.Namespace, Sequence[str]], None]
"""What a command does, given its arguments and those that its parser does not know."""


def add_command(commands: Any, name: str, run: Run, summary: str, examples: str) -> argparse.ArgumentParser:
    """Adds a command, whose help ends in examples.

    Args:
      commands: what `add_subparsers` returned.
      name: of the command.
      run: what it does.
      summary: one line, without capital and full stop.
      examples: indented lines.

    Returns:
      The command's parser, for its arguments.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def names(text: str) -> list[str]:
    """Reads `a,b`."""
    return [name.strip() for name in text.split(",")]


def rectangle(text: str) -> tuple[int, ...]:
    """Reads `X,Y,W,H`."""
    values = tuple(map(int, text.split(",")))
    if len(values) != 4:
        raise ValueError
    return values
