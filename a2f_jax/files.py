"""Writing files so that nobody ever meets half of one."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO

from a2f_jax.errors import UserError


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Opens a file that takes its name when the block ends well, and leaves nothing behind otherwise.

    Args:
      path: the file; one of that name is replaced, folders are made where they do not exist.

    Yields:
      The open file, under another name until then.

    Raises:
      UserError: the file cannot be written.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                yield file
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
