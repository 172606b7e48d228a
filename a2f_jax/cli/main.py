"""The entry point: the parser of all commands, and how errors are reported."""

import argparse
import contextlib
import difflib
import os
import re
import sys
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from a2f_jax import __version__
from a2f_jax.buckets import is_storage_failure
from a2f_jax.cli.commands import message_of
from a2f_jax.cli.process import (
    interruptible,
    missing_device,
    quiet_libraries,
    reuse_freed_memory,
    set_up_streams,
    skip_missing_accelerators,
    undisturbed,
)
from a2f_jax.errors import UserError, escape

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


def _suggestion(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f" (did you mean {close[0]}?)" if close else ""


class _Parser(argparse.ArgumentParser):
    """Reports errors in one line, with the closest valid value."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"a2f: error: {escape(message)}; see `{self.prog} --help`\n")

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        # An empty name, such as that of a shell variable that is not set, would mean this folder or the default.
        if not arg_string and action.nargs != argparse.PARSER:  # COMMAND takes the arguments of the command as well
            raise argparse.ArgumentError(action, "the value is empty")
        return super()._get_value(action, arg_string)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = action.choices
        if choices is None or value in choices:
            return
        if isinstance(choices, range):
            raise argparse.ArgumentError(action, f"{value} is not in {choices[0]}..{choices[-1]}")
        names = [str(choice) for choice in choices]
        raise argparse.ArgumentError(
            action, f"invalid choice {str(value)!r}{_suggestion(str(value), names)}, choose from {', '.join(names)}"
        )


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line with all its commands."""
    # Imported here and not above, so that `main` handles Ctrl-C from the start.
    from a2f_jax.cli import (
        average,
        compare,
        convert,
        data,
        evaluate,
        export,
        info,
        models,
        report,
        serve,
        train,
        upscale,
    )

    root = _Parser(
        prog="a2f",
        description="A2F: lightweight image super-resolution in JAX.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"a2f_jax {__version__}")
    commands = root.add_subparsers(title="commands", metavar="COMMAND")
    for command in (upscale, serve, models, train, evaluate, compare, report, info, convert, average, export, data):
        command.add(commands)
    return root


def _check_unrecognized(command: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    if not arguments:
        return
    flags = sorted({*re.findall(r"(?<![\w-])--[a-z][a-z-]*", command.format_help())})
    positional = {f"--{action.dest}": action.metavar for action in command._actions if not action.option_strings}
    listed = []
    for argument in arguments:
        flag = argument.partition("=")[0]
        hint = f" (pass {positional[flag]} without it)" if flag in positional else _suggestion(flag, flags)
        listed.append(argument + hint)
    command.error(f"unrecognized argument{'s' if len(listed) > 1 else ''}: {', '.join(listed)}")


def _run(argv: Sequence[str] | None) -> int:
    from a2f_jax.cli import train

    root = parser()
    skip_missing_accelerators()  # some types of arguments import JAX
    args, rest = root.parse_known_args(argv)
    if not hasattr(args, "run"):
        if rest:
            _check_unrecognized(root, rest)
        root.print_help(sys.stderr)
        return 2
    _check_unrecognized(args.parser, train.split_overrides(rest)[1] if args.run is train.run else rest)
    quiet_libraries()
    if args.run is train.run and argv is None:  # the process is ours
        reuse_freed_memory()
    try:
        return args.run(args, rest) or 0
    except UserError as error:
        if error.parameter not in vars(args):
            error.parameter = None  # the command has no such flag
        raise


def _run_and_flush(argv: Sequence[str] | None) -> int:
    try:
        return _run(argv)
    finally:
        sys.stdout.flush()  # here, where an error can still be reported


def _discard_output() -> None:
    # What is still buffered cannot be written; Python would try again, and complain, when it exits.
    with contextlib.suppress(OSError):  # not a file, such as when a notebook replaces it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int = 2) -> int:
    print(f"a2f: error: {escape(message)}", file=sys.stderr)
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
      argv: the arguments after the program's name; by default those of the process.

    Returns:
      The exit code: 0 on success, 2 after an error that the user can fix, 75 if a training run can be resumed
      because it saved its state after SIGTERM, or because storage failed, 130 after an interrupt (Ctrl-C).
    """
    if sys.stderr is None:  # there is nobody to tell, but the work can be done
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - open until the process ends
    if sys.stdout is None:
        return _fail("standard output is closed: redirect it to /dev/null to discard it")
    set_up_streams()
    with undisturbed(), interruptible():
        return _main(argv)


def program() -> int:
    """Runs a command as `main` does, for a process that ends afterwards."""
    try:
        with interruptible(ends_process=True):
            return main()
    except KeyboardInterrupt:  # while an error was reported
        return 130


def _main(argv: Sequence[str] | None) -> int:
    try:
        return _run_and_flush(argv)
    except UserError as error:
        return _fail(message_of(error), error.exit_code)
    except BrokenPipeError:  # the reader of a pipe has closed it, such as `head`
        _discard_output()
        return 0
    except OSError as error:  # such as a full disk; errors about a known file are reported where it is used
        if not error.filename:
            _discard_output()
        return _fail(f"{error.filename or 'cannot write'}: {error.strerror or error}")
    except KeyboardInterrupt:
        print("a2f: stopped", file=sys.stderr)
        return 130
    except MemoryError as error:
        return _fail(f"the memory is not sufficient{f' ({error})' if str(error) else ''}: process less at a time")
    except Exception as error:
        if is_storage_failure(error):  # of a bucket, in a library that uses it
            return _fail(f"storage failed: {error or type(error).__name__}")
        if isinstance(error, RuntimeError | AssertionError) and (reason := missing_device()):
            return _fail(reason)
        raise
