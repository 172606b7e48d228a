"""Errors in one of several processes that train together."""

import contextlib
import json
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from a2f_jax.errors import UserError

_LENGTH = 16_384  # bytes per message; the processes have to exchange arrays of the same shape


def _encode(error: Exception | None) -> np.ndarray:
    content: tuple[str, str | None] | None
    if error is None:
        content = None
    elif isinstance(error, UserError):
        content = (str(error), error.parameter)
    else:
        reason = " ".join(str(error).split())
        content = (f"process {jax.process_index()} failed ({type(error).__name__}: {reason})", None)
    if content is not None:
        content = (content[0][:1000], content[1])  # at most 12 bytes per character in JSON
    return np.frombuffer(json.dumps(content).encode().ljust(_LENGTH), np.uint8)


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """Runs a block in every process; if it fails in one of them, it fails in all.

    Otherwise the others would wait at the next collective operation for a process that has ended. All processes have to
    enter the block, which must not contain collective operations itself. None leaves it before all have finished it.

    Raises:
      UserError: the block raised an error in another process. Of several errors, that of the first process is raised.
    """
    if jax.process_count() == 1:
        yield
        return
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    results = multihost_utils.process_allgather(_encode(failure))
    first = next(filter(None, (json.loads(np.asarray(row).tobytes()) for row in results)), None)
    if failure is not None and not isinstance(failure, UserError):
        raise failure
    if first is not None:
        raise UserError(first[0], parameter=first[1]) from failure
