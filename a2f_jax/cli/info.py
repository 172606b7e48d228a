"""`a2f info`."""

import argparse
from collections.abc import Sequence
from typing import Any

from a2f_jax.cli.commands import WEIGHTS_HELP, add_command


def add(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "info",
        run,
        "show parameters and multi-adds of every variant, or what a weights file holds",
        "  a2f info\n  a2f info a2f-sd-x4\n",
    )
    parser.add_argument("weights", nargs="?", metavar="PATH", help=WEIGHTS_HELP)


def run(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Does it."""
    from a2f_jax.models.counts import describe, overview

    if args.weights:
        from a2f_jax.models.weights import load

        print(describe(load(args.weights)))
    else:
        print(overview())
