"""Collects the metrics of training steps without waiting for the devices."""

import array
import math

import jax
import numpy as np

from a2f_jax.training.step import Metrics

_MOST_PENDING = 1000


class StepMetrics:
    """Collects the metrics of training steps, which stay on the devices until they are needed."""

    def __init__(self) -> None:
        self._pending: list[tuple[int, Metrics]] = []
        self._values: dict[str, array.array[float]] = {}
        self._bad: int | None = None

    def add(self, first_step: int, metrics: Metrics) -> None:
        """Adds the metrics of a dispatch, each of shape `[K]`, whose first update is step `first_step`."""
        self._pending.append((first_step, metrics))
        # Lets the devices run at most two dispatches ahead of the host.
        if len(self._pending) > 2:
            jax.block_until_ready(self._pending[-3][1])
        if len(self._pending) > _MOST_PENDING:  # as numbers, metrics take a hundredth of the memory
            self._fetch(len(self._pending) - 2)

    def _fetch(self, count: int) -> None:
        for first_step, metrics in self._pending[:count]:
            for name, series in jax.device_get(metrics).items():
                self._values.setdefault(name, array.array("d")).extend(map(float, series))
                broken = np.flatnonzero(~np.isfinite(series))
                if broken.size and self._bad is None:
                    self._bad = first_step + int(broken[0])
        del self._pending[:count]

    def clear(self) -> None:
        """Discards all metrics."""
        self._pending.clear()
        self._values.clear()
        self._bad = None

    def take(self) -> tuple[dict[str, float], int | None]:
        """Returns the means since `clear`, and the first step whose loss or gradient was not finite."""
        self._fetch(len(self._pending))
        return {name: math.fsum(series) / len(series) for name, series in self._values.items()}, self._bad
