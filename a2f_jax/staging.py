"""Local copies of what is in a bucket, for code that reads and writes local files."""

import contextlib
import hashlib
import os
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence

from a2f_jax import buckets
from a2f_jax.errors import UserError
from a2f_jax.files import exists, is_folder, locked, require_space, user_cache_folder
from a2f_jax.progress import progress_bar

_UPLOAD_INTERVAL = 60.0  # seconds


@contextlib.contextmanager
def naming(local: pathlib.Path, path: pathlib.Path) -> Iterator[None]:
    """Lets errors that the block raises name a path in a bucket instead of its local copy."""
    try:
        yield
    except UserError as error:
        raise type(error)(str(error).replace(str(local), str(path)), parameter=error.parameter) from error


@contextlib.contextmanager
def local_copy(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Provides a file or a folder as a local one for the duration of the block.

    Args:
      path: a path of `as_path`.

    Yields:
      `path` itself if it is local, and otherwise a temporary copy.

    Raises:
      UserError: it cannot be read, or does not fit on the disk. Errors that the block raises name `path`.
    """
    if not buckets.in_bucket(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="a2f-") as folder:
        copy = pathlib.Path(folder) / path.name
        with naming(copy, path):
            if is_folder(path):
                _download(path, copy, _TEMPORARY)
            else:
                _require_space(pathlib.Path(folder), buckets.size(path), path, _TEMPORARY)
                buckets.download(path, copy)
            yield copy


# The environment variables that move the folders of copies.
_TEMPORARY = "TMPDIR"
_CACHE = "XDG_CACHE_HOME"


def _require_space(folder: pathlib.Path, needed: int, path: pathlib.Path, variable: str) -> None:
    require_space(folder, needed, f"a copy of {path}", remedy=f"free some space, or set {variable} to another folder")


def _download(
    path: pathlib.Path, target: pathlib.Path, variable: str, keep: Callable[[str], bool] = lambda name: True
) -> None:
    files = {name: file for name, file in buckets.list_files(path).items() if keep(name)}
    total = sum(file.size for file in files.values())
    target.mkdir(parents=True, exist_ok=True)
    _require_space(target.parent, total, path, variable)
    description = f"downloading {path}"
    with progress_bar(total=total, unit="B", description=description, unit_scale=True, unit_divisor=1024) as bar:
        for name, file in files.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            buckets.download(path / name, target / name)
            # Datasets and caches recognize files that have changed by it.
            os.utime(target / name, (file.modified, file.modified))
            bar.update(file.size)


def cache_folder(path: pathlib.Path, purpose: str) -> pathlib.Path:
    """Returns a folder in the user's cache for files that belong to a folder in a bucket; it need not exist."""
    digest = hashlib.sha256(f"{path}\n{purpose}".encode()).hexdigest()[:16]
    return user_cache_folder() / "buckets" / f"{path.name}-{digest}"


def cached_folder(path: pathlib.Path, part: str = "", keep: Callable[[str], bool] = lambda name: True) -> pathlib.Path:
    """Provides a folder as a local one, copied once per host.

    Several processes may call this at the same time: one copies and the others wait. If an object has changed since,
    the folder is copied again, and the old copy, with whatever was made from it beside it, is deleted.

    Args:
      path: a path of `as_path`.
      part: a name for what `keep` selects.
      keep: whether to copy an object, given its name relative to the folder.

    Returns:
      `path` itself if it is local, and otherwise its copy, whose last component is the same.

    Raises:
      UserError: it cannot be read, or does not fit on the disk.
    """
    if not buckets.in_bucket(path):
        return path
    facts = [f"{name} {file}" for name, file in buckets.list_files(path).items() if keep(name)]
    version = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
    cache = cache_folder(path, f"copy {part}")
    copy = cache / version / path.name
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with locked(cache / "lock"):
            if not copy.is_dir():
                for old in cache.iterdir():
                    if old.is_dir():
                        shutil.rmtree(old)
                partial = cache / "partial"
                with naming(partial / path.name, path):
                    _download(path, partial / path.name, _CACHE, keep)
                os.replace(partial, cache / version)
    except OSError as error:
        raise UserError(f"cannot copy {path} to {cache}: {error.strerror or error}") from error
    return copy


def upload_folder(folder: pathlib.Path, target: pathlib.Path, last: str) -> None:
    """Copies a local folder into a bucket, so that an interruption leaves no folder that looks complete.

    Args:
      folder: the local folder.
      target: the folder in a bucket. Objects in it that `folder` lacks are deleted.
      last: the name of the file that makes the folder complete: deleted first and written last.

    Raises:
      UserError: an object cannot be written.
    """
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    buckets.remove(target / last)
    for name in buckets.list_files(target):
        if name not in files:
            buckets.remove(target / name)
    total = sum(file.stat().st_size for file in files.values())
    description = f"uploading to {target}"
    with progress_bar(total=total, unit="B", description=description, unit_scale=True, unit_divisor=1024) as bar:
        for name in sorted(files, key=lambda name: (name == last, name)):
            buckets.upload(files[name], target / name)
            bar.update(files[name].stat().st_size)


@contextlib.contextmanager
def mirrored(path: pathlib.Path, appended: Sequence[str] = ()) -> Iterator[pathlib.Path]:
    """Provides a folder to write to, whose files are copied to a folder in a bucket whenever they change.

    They are copied once a minute and at the end of the block, because an object can only be replaced as a whole.

    Args:
      path: a path of `as_path`.
      appended: the names of files that exist already, possibly, and are continued.

    Yields:
      `path` itself if it is local, and otherwise a temporary folder.

    Raises:
      UserError: the folder cannot be read or written.
    """
    if not buckets.in_bucket(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="a2f-") as temporary:
        folder = pathlib.Path(temporary)
        for name in appended:
            if exists(path / name):
                buckets.download(path / name, folder / name)
        uploads = _Uploads(folder, path)
        ended = threading.Event()

        def keep_uploading() -> None:
            while not ended.wait(_UPLOAD_INTERVAL):
                with contextlib.suppress(UserError, OSError):  # the next time, or at the end
                    uploads.run()

        thread = threading.Thread(target=keep_uploading, daemon=True)
        thread.start()
        try:
            with naming(folder, path):
                yield folder
        except BaseException:
            ended.set()
            thread.join()
            with contextlib.suppress(UserError):  # the first error matters more
                uploads.run()
            raise
        ended.set()
        thread.join()
        uploads.run()


class _Uploads:
    """Copies the files of a folder that have changed since the last time."""

    def __init__(self, folder: pathlib.Path, target: pathlib.Path):
        self._folder, self._target = folder, target
        self._done = dict(self._versions())

    def _versions(self) -> Iterator[tuple[pathlib.Path, tuple[int, int]]]:
        for file in sorted(self._folder.rglob("*")):
            if file.is_file() and not file.name.endswith(".partial"):
                stat = file.stat()
                yield file, (stat.st_size, stat.st_mtime_ns)

    def run(self) -> None:
        for file, version in list(self._versions()):
            if self._done.get(file) != version:
                buckets.upload(file, self._target / file.relative_to(self._folder).as_posix())
                self._done[file] = version
