"""Stopping on request.

The requests are SIGTERM, which clouds and schedulers send before they take a machine away, SIGHUP, which a terminal
sends when it is closed, and Ctrl-C.
"""

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

from a2f_jax.signals import LastSignal, termination_signals


class Preemption:
    """A context manager that records SIGTERM, SIGHUP, and the first Ctrl-C instead of letting them end the process.

    A second Ctrl-C does what Ctrl-C did before, unless it follows within a second: some programs send it twice.

    Attributes:
      interrupted: whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._requested = False
        self._last_interrupt = LastSignal()
        self._calls = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Preemption":
        if threading.current_thread() is threading.main_thread():
            # A process that was started in the background of a script ignores Ctrl-C, and must go on doing so.
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)
            for number in termination_signals():
                # With several processes, JAX's own service handles SIGTERM and makes all processes agree on a step.
                if number != signal.SIGTERM or jax.process_count() == 1:
                    self._before[number] = signal.signal(number, self._terminate)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _terminate(self, _signal: int, _frame: FrameType | None) -> None:
        self._requested = True
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            if not self._last_interrupt.is_recent():
                signal.signal(signal.SIGINT, self._before[signal.SIGINT])
                signal.raise_signal(signal.SIGINT)
            return
        self._last_interrupt.note()
        self.interrupted = True
        # Not `print`, because the signal may interrupt a print to the same stream.
        with contextlib.suppress(OSError):  # the terminal is gone
            os.write(2, b"\nStopping after this step; press Ctrl-C again to stop at once\n")
        self._terminate(number, frame)

    def requested(self) -> bool:
        """Returns whether to save and stop now.

        Every process must call this equally often, and all of them get the same answer.
        """
        if jax.process_count() > 1:
            # JAX waits for the successor of the highest number it was given, so numbers must not be skipped.
            self._calls += 1
            return multihost_utils.reached_preemption_sync_point(self._calls)
        return self._requested
