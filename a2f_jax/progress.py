"""Progress bars: lively on a terminal, a line now and then in a log file."""

import sys
from typing import Any, TextIO

import tqdm

LOG_INTERVAL = 10.0
"""Seconds between the lines that a bar writes where there is no terminal, and before the first."""


class _LogLines:
    """A file for tqdm that turns what would redraw a line into whole lines, and repeats none."""

    def __init__(self, file: TextIO):
        self._file, self._last = file, ""

    def write(self, text: str) -> None:
        line = text.strip()
        if line and line != self._last:
            self._file.write(f"{line}\n")
            self._last = line

    def flush(self) -> None:
        self._file.flush()


def progress_bar(
    *, total: int | None, unit: str, description: str = "", visible: bool = True, **options: Any
) -> tqdm.tqdm:
    """Returns a progress bar on standard error, to be used as a context manager.

    On a terminal it is redrawn in place. Elsewhere, as in the log of a batch job, it writes a line every ten seconds,
    and nothing at all about work that takes less.

    Args:
      total: the number of units of work, or None if it is not known.
      unit: what is counted, in the singular, such as `"image"`.
      description: what is being done.
      visible: whether to show it.
      **options: further options of `tqdm.tqdm`, for the terminal.
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
