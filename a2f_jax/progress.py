"""Progress bars on a terminal, and occasional lines in a log file."""

import sys
from typing import Any, TextIO

import tqdm

from a2f_jax.errors import escape

LOG_INTERVAL = 10.0
"""Seconds between the lines that a bar writes to a log file, and before the first one."""


class _LogLines:
    """Turns tqdm's updates, which redraw one line, into complete lines without repetitions."""

    def __init__(self, file: TextIO):
        self._file, self._last = file, ""

    def write(self, text: str) -> None:
        line = text.strip()
        if line and line != self._last:
            self._file.write(f"{line}\n")
            self._last = line

    def flush(self) -> None:
        self._file.flush()


def say(text: str) -> None:
    """Prints a message of the program on standard error, without breaking a progress bar that is shown there."""
    tqdm.tqdm.write(f"a2f: {escape(text)}", file=sys.stderr)


def progress_bar(
    *, total: int | None, unit: str, description: str = "", visible: bool = True, **options: Any
) -> tqdm.tqdm:
    """Returns a progress bar on standard error, for use as a context manager.

    On a terminal the bar is redrawn in place. Elsewhere, such as in the log of a batch job, it writes a line every
    `LOG_INTERVAL` seconds, and nothing if the work finishes sooner.

    Args:
      total: the number of units of work, or None if unknown.
      unit: the name of one unit, such as `"image"`.
      description: a label in front of the bar.
      visible: whether to show the bar.
      **options: further arguments of `tqdm.tqdm`, used on a terminal only (except `unit_scale`).
    """
    if sys.stderr.isatty():
        return tqdm.tqdm(total=total, unit=unit, desc=description or None, disable=not visible, **options)
    counted = "{n_fmt}/{total_fmt}" if total is not None else "{n_fmt}"
    prefix = "{desc}: " if description else ""
    remaining = ", {remaining} remaining" if total is not None else ""
    return tqdm.tqdm(
        file=_LogLines(sys.stderr),
        total=total,
        unit=unit,
        desc=description or None,
        disable=not visible,
        bar_format=f"{prefix}{counted} {unit}s, {{elapsed}} elapsed{remaining}",
        mininterval=LOG_INTERVAL,
        maxinterval=LOG_INTERVAL,
        miniters=1,
        delay=LOG_INTERVAL,
        unit_scale=options.get("unit_scale", False),
    )
