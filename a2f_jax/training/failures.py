"""Failures of a run that has begun: which of them may pass, and what to do about those of the device."""

import contextlib
import os
from collections.abc import Callable, Iterator

import jax
from ml_collections import ConfigDict

from a2f_jax.buckets import is_storage_failure
from a2f_jax.errors import StorageError, UserError, may_pass


@contextlib.contextmanager
def explaining_failures(config: ConfigDict, begun: Callable[[], bool]) -> Iterator[None]:
    """Runs a block; its errors say how to go on.

    Args:
      config: the settings of the run.
      begun: returns whether there is something to resume.

    Raises:
      UserError: the memory of a device is too small.
      StorageError: storage failed. Its exit code says whether the run can be resumed.
    """
    try:
        yield
    except StorageError as error:
        if begun():
            error.exit_code = os.EX_TEMPFAIL
        raise
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        ways = [
            f"reduce config.batch_size={config.batch_size} or config.data.patch_size={config.data.patch_size}",
            f"increase config.accumulate={config.accumulate}",
        ]
        if config.model.get("remat") is False:
            ways.append("set config.model.remat=True")
        if config.data.placement == "device":
            ways.append("set config.data.placement=host")
        raise UserError(
            f"training does not fit into the memory of one {jax.local_devices()[0].device_kind}: "
            f"{', '.join(ways[:-1])}, or {ways[-1]}"
        ) from error
    except Exception as error:
        of_disk = isinstance(error, OSError) and may_pass(error)
        if not of_disk and not is_storage_failure(error):
            raise
        reason = getattr(error, "strerror", None) or error or type(error).__name__
        name = getattr(error, "filename", None)
        passing = StorageError(f"storage failed: {reason}{f' {name}' if name else ''}")
        if begun():
            passing.exit_code = os.EX_TEMPFAIL
        raise passing from error
