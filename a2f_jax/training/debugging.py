"""Debugging aids for training runs: profiler traces, the origin of a NaN, and the cause of a divergence."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax

from a2f_jax.data import Patches
from a2f_jax.errors import UserError


@contextlib.contextmanager
def tracing(workdir: pathlib.Path, profile: int | None, step: int, count: int) -> Iterator[bool]:
    """Traces the dispatch that contains step `profile` into `workdir/profile`.

    Yields whether this dispatch is traced, in which case the caller must wait for its results inside the block.
    """
    traced = profile is not None and step <= profile < step + count
    with jax.profiler.trace(str(workdir / "profile")) if traced else contextlib.nullcontext():
        yield traced


def checked(run: Callable[[Any, Any], Any], step: int) -> Callable[[Any, Any], Any]:
    """Wraps a step for `config.checks`: disallows implicit transfers and traces a NaN to its origin."""

    def run_checked(state: Any, inputs: Any) -> Any:
        try:
            with jax.debug_nans(False), jax.transfer_guard("disallow"):
                jax.block_until_ready(run(state, inputs))
            # A second run, because the search for the operation that made a NaN transfers constants, which the guard
            # disallows.
            with jax.debug_nans(True):
                return run(state, inputs)
        except FloatingPointError as error:
            raise UserError(f"config.checks found a NaN at step {step}: {error}") from error

    return run_checked


def explain_divergence(patches: Patches, workdir: pathlib.Path, step: int, seed: int, rate: float) -> NoReturn:
    """Raises a `UserError` that names the step and the images at which a run diverged, and what to change."""
    chosen = patches.choice(step)[0]
    names = ", ".join(sorted({patches.cache.names[i] for i in chosen}))
    raise UserError(
        f"training diverged at step {step}: the loss, the gradient or the new weights are not finite (learning rate "
        f"{rate:.3g}, batch {step} of seed {seed}: {names}). Checkpoints in {workdir}, if any, are from before that "
        "step. Lower config.optimizer.learning_rate or set config.optimizer.clip_norm, then resume with "
        "accept_changes"
    )
