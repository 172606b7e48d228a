"""Collects the metrics of training steps without waiting for the devices."""

import math

import jax
import numpy as np

from a2f_jax.training.step import Metrics


class StepMetrics:
    """Collects the metrics of training steps, which stay on the devices until they are needed."""

    def __init__(self) -> None:
        self._pending: list[tuple[int, Metrics]] = []

    def add(self, first_step: int, metrics: Metrics) -> None:
        """Adds the metrics of a dispatch, each of shape `[K]`, whose first update is step `first_step`."""
        self._pending.append((first_step, metrics))
        # Lets the devices run at most two dispatches ahead of the host.
        if len(self._pending) > 2:
            jax.block_until_ready(self._pending[-3][1])

    def clear(self) -> None:
        """Discards all metrics."""
        self._pending.clear()

    def take(self) -> tuple[dict[str, float], int | None]:
        """Returns the means since `clear`, and the first step whose loss or gradient was not finite."""
        values: dict[str, list[float]] = {}
        bad = None
        for first_step, metrics in self._pending:
            host = jax.device_get(metrics)
            for name, series in host.items():
                values.setdefault(name, []).extend(map(float, series))
                broken = np.flatnonzero(~np.isfinite(series))
                if broken.size and bad is None:
                    bad = first_step + int(broken[0])
        return {name: math.fsum(series) / len(series) for name, series in values.items()}, bad
