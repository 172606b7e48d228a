"""What processes that train together have to agree on: the folder they write to, and errors in one of them."""

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from a2f_jax.errors import StorageError, UserError, shorten

_LENGTH = 16_384  # bytes per message; the processes have to exchange arrays of the same shape
# Seconds until a file has to be visible to other machines. NFS remembers for up to a minute that it was missing.
_PATIENCE = 75.0


def _encode(error: Exception | None) -> np.ndarray:
    content: tuple[str, str | None, bool] | None
    if error is None:
        content = None
    elif isinstance(error, UserError):
        content = (str(error), error.parameter, isinstance(error, StorageError))
    else:
        reason = " ".join(str(error).split())
        content = (f"process {jax.process_index()} failed ({type(error).__name__}: {reason})", None, False)
    if content is not None:
        content = (content[0][:1000], *content[1:])  # at most 12 bytes per character in JSON
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
        message, parameter, of_storage = first
        raise (StorageError if of_storage else UserError)(message, parameter=parameter) from failure


def check_same(settings: Mapping[str, Any]) -> None:
    """Checks that all processes train with the same settings.

    Otherwise each would compute an update of its own, without an error, or wait for the others forever.

    Args:
      settings: the settings of this process by name, with the versions of the packages.

    Raises:
      UserError: those of another process differ from those of the first one; the message names them.
    """
    if jax.process_count() == 1:
        return
    text = json.dumps({name: repr(value) for name, value in settings.items()}, sort_keys=True).encode()
    lengths = np.asarray(multihost_utils.process_allgather(np.array(len(text)))).ravel()
    padded = np.frombuffer(text.ljust(lengths.max()), np.uint8)
    first, *others = [json.loads(np.asarray(row).tobytes()) for row in multihost_utils.process_allgather(padded)]
    for index, other in enumerate(others, 1):
        different = [
            f"{name}={other.get(name)} instead of {first.get(name)}"
            for name in sorted({*first, *other})
            if first.get(name) != other.get(name)
        ]
        if different:
            raise UserError(
                f"process {index} has other settings than process 0: {shorten(different)}; start all with the same "
                "command, config, and packages"
            )


def check_shared(folder: pathlib.Path) -> None:
    """Checks that all processes see the same folder, because they write checkpoints together.

    Args:
      folder: an existing folder, local or on a file system that machines share.

    Raises:
      UserError: a process does not see a file that the first one has written.
    """
    if jax.process_count() == 1:
        return
    secret = multihost_utils.broadcast_one_to_all(np.frombuffer(os.urandom(8), np.uint8))
    file = folder / f".shared-{np.asarray(secret).tobytes().hex()}"
    first = jax.process_index() == 0
    with failing_together():
        if first:
            file.touch()
    try:
        with failing_together():
            until = time.monotonic() + _PATIENCE
            while not file.exists():
                if time.monotonic() > until:
                    raise UserError(
                        f"process {jax.process_index()} does not see what process 0 writes to {folder}: use a folder "
                        "that all machines share, or one in a bucket (gs://...)"
                    )
                time.sleep(0.1)
    finally:
        if first:
            file.unlink(missing_ok=True)
