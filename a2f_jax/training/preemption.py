"""Stopping on request: SIGTERM, which clouds and schedulers send before they take a machine away, and Ctrl-C."""

import os
import signal
import threading
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils


class Preemption:
    """A context manager that records SIGTERM and the first Ctrl-C instead of letting them end the process.

    A second Ctrl-C does what Ctrl-C did before.

    Attributes:
      interrupted: whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._requested = False
        self._calls = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Preemption":
        if threading.current_thread() is threading.main_thread():
            # A process that was started in the background of a script ignores Ctrl-C, and must go on doing so.
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)
            # With several processes, JAX's own service handles SIGTERM and makes all processes agree on a step.
            if jax.process_count() == 1:
                self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._terminate)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _terminate(self, _signal: int, _frame: FrameType | None) -> None:
        self._requested = True

    def _interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, self._before[signal.SIGINT])
        self.interrupted = self._requested = True
        # Not `print`, because the signal may interrupt a print to the same stream.
        os.write(2, b"\nStopping after this step; press Ctrl-C again to stop at once\n")
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def requested(self) -> bool:
        """Returns whether to save and stop now.

        Every process must call this equally often, and all of them get the same answer.
        """
        if jax.process_count() > 1:
            # JAX waits for the successor of the highest number it was given, so numbers must not be skipped.
            self._calls += 1
            return multihost_utils.reached_preemption_sync_point(self._calls)
        return self._requested
