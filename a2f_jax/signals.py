"""The signals that ask a process to end."""

import signal

DUPLICATES = 1.0
"""Seconds within which another Ctrl-C is the same one: `timeout -s INT` sends it to a process and to its group."""


def termination_signals() -> list[signal.Signals]:
    """Returns SIGTERM and, where it exists and is not ignored, SIGHUP, which a terminal sends when it is closed."""
    numbers = [signal.SIGTERM]
    hang_up = getattr(signal, "SIGHUP", None)  # not on Windows
    if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:  # `nohup` ignores it
        numbers.append(hang_up)
    return numbers
