"""The signals that ask a process to end."""

import math
import signal
import time

DUPLICATES = 1.0
"""Seconds within which another signal is the same one: `timeout -s INT` sends it to a process and to its group."""


class LastSignal:
    """When a signal was last acted upon."""

    def __init__(self) -> None:
        self.forget()

    def note(self) -> None:
        """Remembers that a signal is acted upon now."""
        self._at = time.monotonic()

    def forget(self) -> None:
        """Lets the next signal count, whenever it comes."""
        self._at = -math.inf

    def is_recent(self) -> bool:
        """Returns whether a signal that arrives now is a duplicate of it."""
        return time.monotonic() < self._at + DUPLICATES


def termination_signals() -> list[signal.Signals]:
    """Returns SIGTERM and, where it exists and is not ignored, SIGHUP, which a terminal sends when it is closed."""
    numbers = [signal.SIGTERM]
    hang_up = getattr(signal, "SIGHUP", None)  # not on Windows
    if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:  # `nohup` ignores it
        numbers.append(hang_up)
    return numbers
