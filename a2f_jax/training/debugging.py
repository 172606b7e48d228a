"""What helps to understand a run: traces of a step, the origin of a NaN, the reasons for a divergence."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax

from a2f_jax.data import Patches
from a2f_jax.errors import UserError


@contextlib.contextmanager
def tracing(workdir: pathlib.Path, profile: int | None, step: int, count: int) -> Iterator[bool]:
    """Traces the dispatch that holds the step `profile`; says whether this is it, and then is to be waited for."""
    traced = profile is not None and step <= profile < step + count
    with jax.profiler.trace(str(workdir / "profile")) if traced else contextlib.nullcontext():
        yield traced


def checked(run: Callable[[Any, Any], Any], step: int) -> Callable[[Any, Any], Any]:
    """For `config.checks`: nothing may move between host and devices unasked, and a NaN is traced to its origin."""

    def run_checked(state: Any, inputs: Any) -> Any:
        try:
            with jax.debug_nans(False), jax.transfer_guard("disallow"):
                jax.block_until_ready(run(state, inputs))
            # Again, since the search for a NaN's origin, operation by operation, moves constants.
            with jax.debug_nans(True):
                return run(state, inputs)
        except FloatingPointError as error:
            raise UserError(f"config.checks found a NaN at step {step}: {error}") from error

    return run_checked


def explain_divergence(patches: Patches, workdir: pathlib.Path, step: int, seed: int, rate: float) -> NoReturn:
    """Raises a `UserError` that says at which step and on which images a run diverged, and what to change."""
    chosen = patches.choice(step)[0]
    names = ", ".join(sorted({patches.cache.names[i] for i in chosen}))
    raise UserError(
        f"the loss, its gradient or the weights after it are not finite at step {step} (learning rate {rate:.3g}, "
        f"batch {step} of seed {seed}: {names}). The checkpoints in {workdir}, if there are any, are from "
        "before; lower config.optimizer.learning_rate, or set config.optimizer.clip_norm, and start again with "
        "--accept-changes"
    )
