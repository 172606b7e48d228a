"""Paths of users, local or in a bucket; free space, atomic file replacement and locks between processes."""

import contextlib
import errno
import fcntl
import hashlib
import math
import os
import pathlib
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

import platformdirs

from a2f_jax import buckets
from a2f_jax.errors import StorageError, UserError, count_of, may_pass, system_failure


def local_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns a local path, with a leading `~` or `~user` expanded to the home folder.

    Args:
      path: a file or folder; it need not exist.

    Raises:
      UserError: the path is a URL, such as `gs://bucket/folder`, or the user after `~` does not exist.
    """
    text = os.fspath(path)
    if buckets.is_url(text):
        raise UserError(f"{text} is not a local path: download it, or mount the bucket and pass its folder")
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{text}: the user after ~ does not exist, or has no home folder") from error


def user_cache_folder() -> pathlib.Path:
    """Returns the folder of this package in the user's cache folder (`~/.cache` on Linux); it need not exist.

    Raises:
      UserError: the user has no home folder, as in containers that run as a user without an account.
    """
    try:
        return platformdirs.user_cache_path("a2f_jax", appauthor=False)
    except RuntimeError as error:
        raise UserError("this user has no home folder: set HOME to a folder that can be written") from error


def as_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the path of a file or folder that may be in a bucket.

    Args:
      path: a local path, of which a leading `~` or `~user` is expanded to the home folder, or a URL such as
        `gs://bucket/folder`. It need not exist, but the bucket must.

    Returns:
      For a URL an `etils.epath.Path`, which has the methods of `pathlib.Path`.

    Raises:
      UserError: the bucket cannot be used, or the user after `~` does not exist.
    """
    if isinstance(path, pathlib.PurePath) and buckets.in_bucket(path):
        return path  # type: ignore[return-value]
    return buckets.bucket_path(os.fspath(path)) if buckets.is_url(path) else local_path(path)


def resolved(path: pathlib.Path) -> pathlib.Path:
    """Returns a path of `as_path`, absolute and without symbolic links, which a bucket does not have."""
    return path if buckets.in_bucket(path) else path.resolve()


def identity(path: pathlib.Path) -> object:
    """Returns what is equal for all names of a file or folder at a path of `as_path`.

    A local file can have several: by links, by file systems that are mounted twice, or that ignore the case.
    """
    if not buckets.in_bucket(path):
        with contextlib.suppress(OSError):
            stat = os.stat(path)
            return stat.st_dev, stat.st_ino
    return resolved(path)


def expanded(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns what a path of `as_path` stands for: in a bucket, where no shell does it, patterns are expanded.

    Args:
      path: a path, such as `gs://bucket/photos/*.png`.

    Returns:
      The objects and folders that match, in order, or the path itself if it is local, no pattern, or exists.

    Raises:
      UserError: nothing matches the pattern, or the bucket cannot be listed.
    """
    if not buckets.in_bucket(path) or not any(character in str(path) for character in "*?[") or exists(path):
        return [path]
    found = buckets.matching(path)
    if not found:
        raise UserError(f"nothing in the bucket matches {path}")
    return found


def exists(path: pathlib.Path) -> bool:
    """Returns whether there is a file or folder, or locally a link to nothing, at a path of `as_path`."""
    return buckets.exists(path) if buckets.in_bucket(path) else os.path.lexists(path)


def is_folder(path: pathlib.Path) -> bool:
    """Returns whether a path of `as_path` is a folder; not an error if it cannot be found out on a disk."""
    return buckets.is_folder(path) if buckets.in_bucket(path) else os.path.isdir(path)


def check_readable(folder: pathlib.Path) -> None:
    """Checks that everything in a folder can be read, or does not exist. In a bucket, nothing is checked.

    What libraries say about a file that they cannot read often hides why, or calls it damaged.

    Args:
      folder: a folder with few files, such as one dataset.

    Raises:
      UserError: the system does not let this process read a file or folder.
    """
    if buckets.in_bucket(folder):
        return
    errors: list[OSError] = []
    for place, _, names in os.walk(folder, onerror=errors.append):
        for name in names:
            path = os.path.join(place, name)
            try:
                if stat.S_ISREG(os.stat(path).st_mode):
                    with open(path, "rb") as file:
                        file.read(1)
            except OSError as error:
                errors.append(error)
    for failed in errors:
        if reason := system_failure(failed):
            raise UserError(f"cannot read {failed.filename}: {reason}") from failed


def walk(
    folder: pathlib.Path, on_error: Callable[[OSError], object] | None = None
) -> Iterator[tuple[pathlib.Path, list[str], list[str]]]:
    """Yields a local folder and the folders in it, like `os.walk`, but follows links to folders.

    Every folder is yielded once, however many links lead to it or back to a folder above: under its own name if it is
    inside `folder` and not hidden, and otherwise under that of a link which is not hidden, if there is one.

    Args:
      folder: the folder to begin with.
      on_error: called with the error of each folder that cannot be listed.

    Yields:
      A folder, the names of the folders in it, and those of its files. Names that the caller removes from the former
      are not entered.
    """
    entered: set[str] = set()
    links, hidden = [folder], list[pathlib.Path]()
    while links or hidden:
        for parent, folders, names in os.walk((links or hidden).pop(0), onerror=on_error):
            if (real := os.path.realpath(parent)) in entered:
                folders.clear()
                continue
            entered.add(real)
            yield pathlib.Path(parent), folders, names
            hidden += [pathlib.Path(parent, name) for name in sorted(folders) if name.startswith(".")]
            folders[:] = [name for name in folders if not name.startswith(".")]
            links += [path for name in sorted(folders) if (path := pathlib.Path(parent, name)).is_symlink()]


def _path(path: str | os.PathLike[str]) -> pathlib.Path:
    return path if isinstance(path, pathlib.PurePath) else pathlib.Path(path)  # type: ignore[return-value]


def _is_special(path: pathlib.Path) -> bool:
    # A named pipe, a device, or a socket.
    return not buckets.in_bucket(path) and os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def check_regular(path: str | os.PathLike[str]) -> None:
    """Checks that a path, if it exists, is a file or a folder, because opening a named pipe would block.

    Args:
      path: a file or folder that is about to be read.

    Raises:
      UserError: it is a named pipe, a device or a socket.
    """
    path = _path(path)
    if _is_special(path):
        raise UserError(f"{path} is not a regular file: save its content to a file")


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Checks that files can be created in a folder, and leaves no trace.

    Args:
      folder: the folder. If it does not exist, the closest existing folder above it is checked.

    Raises:
      UserError: no file can be created there.
    """
    folder = _path(folder)
    if buckets.in_bucket(folder):
        buckets.check_writable(folder)
        return
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise UserError(f"cannot write to {folder}: {existing} is not a folder; choose another one")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from error


def check_file_writable(file: str | os.PathLike[str]) -> None:
    """Checks that a file can be created or replaced, and leaves no trace.

    Args:
      file: the file; missing folders above it count as writable if they can be created.

    Raises:
      UserError: it is a folder, a named pipe, a device or a socket, or no file can be created in its folder.
    """
    file = _path(file)
    check_writable(file.parent)  # first, because without permission, a bucket does not tell what there is
    if is_folder(file):
        raise UserError(f"{file} is a folder: add the name of a file")
    check_replaceable(file)


def check_replaceable(file: pathlib.Path) -> None:
    """Checks that what a path stands for, if it exists, is a regular file or a folder, or in a bucket.

    Raises:
      UserError: it is a named pipe, a device, or a socket, in whose place a file would appear.
    """
    if _is_special(file):
        raise UserError(f"{file} is not a regular file: choose another name")


def format_bytes(count: int) -> str:
    """Formats a number of bytes for a message, in the units that `a2f_jax.upscaling.plan.parse_bytes` reads.

    Args:
      count: the number of bytes, at least 0.

    Returns:
      The size with its unit, such as `"413 MB"` or `"1.5 GB"`. Units are powers of 1024. The size is rounded up, so
      that a limit of the size in the message is sufficient.
    """
    if count < 1024:
        return count_of(count, "byte")
    power = min((count.bit_length() - 1) // 10, 4)
    tenths = math.ceil(count * 10 / 1024**power)
    digits = f"{tenths / 10:.1f}" if tenths < 1000 and tenths % 10 else str(-(-tenths // 10))
    return f"{digits} {' KMGT'[power]}B"


def require_space(
    folder: str | os.PathLike[str], needed: int, what: str, *, remedy: str, parameter: str | None = None
) -> None:
    """Checks that a disk has enough free space, before any work is done. A bucket always has.

    Args:
      folder: a folder on the disk. If it does not exist, the closest existing folder above it is checked.
      needed: the number of bytes that will be written.
      what: what is written, in the singular, such as `"preparing DIV2K"`.
      remedy: what the user can do, such as `"free some space or choose another folder"`.
      parameter: the name of the parameter that remedies the error, if there is one.

    Raises:
      UserError: the disk has less free space than needed.
    """
    folder = _path(folder)
    if buckets.in_bucket(folder):  # which has no limit
        return
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise UserError(
            f"{folder} has {format_bytes(free)} of free space, but {what} takes {format_bytes(needed)}: {remedy}",
            parameter=parameter,
        )


def flush_to_disk(file: BinaryIO) -> None:
    """Waits until what was written to an open file is on the disk.

    Otherwise a machine that fails may keep the name that the file gets afterwards without its content.
    """
    file.flush()
    os.fsync(file.fileno())


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, overwrite: bool = True) -> Iterator[BinaryIO]:
    """Writes a file atomically: it appears under its name, complete, when the block ends without an exception.

    Until then the data goes to a temporary file beside it, or to a local one if `path` is in a bucket. If the block
    raises, that file is removed, and an existing file at `path` stays as it was.

    Args:
      path: the file to create or replace; missing folders are created.
      overwrite: whether to replace a file that exists when the block ends. If not, there is a moment in which one that
        another process creates is not noticed, in a bucket and on file systems without hard links.

    Yields:
      The temporary file, open for writing.

    Raises:
      UserError: the file cannot be written, or exists; `StorageError` if it may be possible later. Errors of other
        files that the block uses are raised unchanged.
    """
    path = _path(path)
    if buckets.in_bucket(path):
        with tempfile.NamedTemporaryFile(prefix="a2f-", suffix=path.suffix) as temporary:
            yield temporary  # type: ignore[misc]
            temporary.flush()
            if not overwrite and exists(path):
                raise _appeared(path)
            buckets.upload(temporary.name, path)
        return
    # Only the beginning of the name, which may already be as long as the file system allows, and a hash of all of it.
    digest = hashlib.blake2s(os.fsencode(path.name), digest_size=4).hexdigest()
    # The numbers of processes in two containers that share a folder are often equal, hence the random part.
    partial = path.with_name(f".{path.name[:32]}.{digest}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    opened = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.lstat()  # fails now, before anything is written, if the name is too long
        try:
            with partial.open("xb") as file:
                opened = True
                yield file
                flush_to_disk(file)
            opened = False
            if overwrite:
                os.replace(partial, path)
            elif not _link(partial, path):
                raise _appeared(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        if opened and error.filename is not None:  # not from writing to the open file: the block used another file
            raise
        kind = StorageError if may_pass(error) else UserError
        raise kind(f"cannot write {path}: {error.strerror or error}") from error


def _appeared(path: pathlib.Path) -> UserError:
    message = f"{path} was created by another process in the meantime: choose another output, or replace it"
    return UserError(message, parameter="overwrite")


def _link(partial: pathlib.Path, path: pathlib.Path) -> bool:
    # Unlike a renamed file, a link replaces nothing. Returns whether `path` did not exist.
    try:
        os.link(partial, path)
    except FileExistsError:
        return False
    except OSError:  # the file system has no hard links
        if os.path.lexists(path):
            return False
        os.replace(partial, path)
    return True


_PARTIAL = re.compile(r"\..{1,32}\.[0-9a-f]{8}\.\d+\.[0-9a-f]{8}\.partial", re.DOTALL)
_ABANDONED = 24 * 3600  # seconds


def remove_abandoned(folder: pathlib.Path) -> None:
    """Removes the temporary files of `replacing` that processes have left which were killed more than a day ago."""
    if buckets.in_bucket(folder):
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if _PARTIAL.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > _ABANDONED:
                    os.unlink(entry.path)


@contextlib.contextmanager
def locked(path: pathlib.Path, wait: bool = True) -> Iterator[None]:
    """Holds an exclusive lock between processes. The operating system releases it if the process dies.

    On a file system without locks, the block runs without one.

    Args:
      path: the lock file, created if missing and never removed.
      wait: whether to wait, with a message on standard error, while another process holds the lock.

    Raises:
      BlockingIOError: another process holds the lock and `wait` is False.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            print(f"Waiting for another process that is using {path.parent}", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise
        yield
