"""Stopping on request: clouds and schedulers send SIGTERM before they take a machine away."""

import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils


class Preemption:
    """A context manager that records SIGTERM instead of letting it end the process."""

    def __init__(self) -> None:
        self._asked = False
        self._calls = 0
        self._before: signal.Handlers | object = None

    def __enter__(self) -> "Preemption":
        # With several processes, JAX's own service handles the signal and makes all processes agree on a step.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)  # type: ignore[arg-type]

    def _remember(self, _signal: int, _frame: FrameType | None) -> None:
        self._asked = True

    def requested(self) -> bool:
        """Returns whether to save and stop now.

        Every process must call this equally often, and all of them get the same answer.
        """
        if jax.process_count() > 1:
            # JAX waits for the successor of the highest number it was given, so numbers must not be skipped.
            self._calls += 1
            return multihost_utils.reached_preemption_sync_point(self._calls)
        return self._asked
