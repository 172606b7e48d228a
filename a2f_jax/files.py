"""Paths as users write them, files that are replaced in one piece, and locks between processes."""

import contextlib
import fcntl
import os
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import BinaryIO

from a2f_jax.errors import UserError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns a path as the user meant it: `~` stands for the home folder.

    Args:
      path: of a file or folder, which need not exist.

    Raises:
      UserError: it is the address of a bucket, such as `gs://name/folder`.
    """
    text = os.fspath(path)
    if _URL.match(text):
        raise UserError(f"{text} is not a local path, and buckets are not supported: mount it, or copy it to a disk")
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{text}: there is no such user, or no home folder") from error


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


@contextlib.contextmanager
def locked(path: pathlib.Path, wait: bool = True) -> Iterator[None]:
    """Holds a lock among processes; the operating system takes it back from a process that dies.

    Args:
      path: the file to lock, which stays.
      wait: whether to wait for another process that holds it; if not, `BlockingIOError` is raised.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            print(f"Waiting for another process that works in {path.parent}", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
