"""Object storage: paths such as `gs://bucket/folder`, what can be done with them, and claims in place of locks.

A path in a bucket is an `etils.epath.Path`, which has the methods of `pathlib.Path`. Uploading one object is atomic: it
appears complete or not at all. The libraries are imported when the first URL is used, and not before.
"""

import contextlib
import functools
import importlib.util
import json
import logging
import os
import pathlib
import platform
import re
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn, cast

from a2f_jax.errors import StorageError, UserError

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)
_LIBRARIES = {"gs": "gcsfs", "s3": "s3fs"}
_EXTRAS = {"gs": "gcs", "s3": "s3"}
_PATIENCE = 10.0  # seconds to wait for the first answer; gcsfs itself tries for more than a minute
_REFRESH = 5.0  # seconds between the refreshments of a claim
_PROBE = ".a2f-writable"  # the object that is created to see whether it can be
_EXPIRY = 20.0  # seconds without a refreshment after which the owner of a claim must be dead


class BucketFile(NamedTuple):
    """What a listing tells about an object.

    Attributes:
      size: in bytes.
      modified: when it was written, in seconds since 1970.
      version: changes whenever the object is replaced.
    """

    size: int
    modified: float
    version: str


def is_url(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path has a scheme, such as `gs://bucket/folder`, also if `pathlib` has turned `//` into `/`."""
    return bool(_URL.match(os.fspath(path)))


def in_bucket(path: pathlib.PurePath) -> bool:
    """Returns whether a path object was made by `bucket_path`."""
    return not isinstance(path, pathlib.Path)


def is_whole_bucket(path: pathlib.PurePath) -> bool:
    """Returns whether a path is that of a bucket, and not of something in it."""
    return in_bucket(path) and str(path).rstrip("/").count("/") == 2


def bucket_path(url: str) -> pathlib.Path:
    """Returns the path of an object or a folder in a bucket, after checking that the bucket answers.

    Args:
      url: `gs://BUCKET/NAME`, or `s3://BUCKET/NAME`.

    Returns:
      An `etils.epath.Path`, which has the methods of the declared type.

    Raises:
      UserError: the scheme is another one, an optional package is missing, or the bucket does not exist, cannot be
        listed, or does not answer within seconds.
    """
    match = _URL.match(url)
    assert match
    scheme, rest = match[1].lower(), match[2]
    if scheme not in _LIBRARIES:
        raise UserError(f"{url} is neither a local path nor in a bucket (gs://, s3://): download it")
    bucket = rest.partition("/")[0]
    if not bucket:
        raise UserError(f"{url} does not name a bucket: use {scheme}://BUCKET/FOLDER")
    if importlib.util.find_spec(_LIBRARIES[scheme]) is None:
        raise UserError(f"{url} requires an optional package: pip install 'a2f_jax[{_EXTRAS[scheme]}]'")
    _connect(scheme, bucket)
    from etils import epath

    return cast(pathlib.Path, epath.Path(f"{scheme}://{rest}"))


def check_checkpoints(folder: pathlib.PurePath) -> None:
    """Checks that Orbax can keep checkpoints in a folder.

    Raises:
      UserError: the folder is in a bucket of a kind that Orbax does not support.
    """
    if in_bucket(folder) and not str(folder).startswith("gs:"):
        raise UserError(f"{folder} cannot hold checkpoints: use a folder in gs:// or on a disk")


@functools.cache
def _gs_token() -> str:
    # How gcsfs finds credentials. Left to itself it asks for those of a virtual machine twice, for many seconds.
    if "STORAGE_EMULATOR_HOST" in os.environ:
        return "anon"
    import google.auth.exceptions

    try:
        google.auth.default()
    except google.auth.exceptions.DefaultCredentialsError:
        return "anon"  # for public buckets
    return "google_default"


def _filesystem(scheme: str) -> Any:
    # One way to access buckets, whether TensorFlow happens to be installed (extra [tensorboard]) or not.
    os.environ.setdefault("EPATH_USE_TF", "false")
    # To tell kinds of buckets apart, gcsfs would ask another service, and wait a minute if that is out of reach.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import fsspec.config
    from etils.epath import backend

    for protocol in _LIBRARIES:
        # Other machines write to the same bucket.
        fsspec.config.conf.setdefault(protocol, {}).setdefault("use_listings_cache", False)
    if scheme == "gs":
        fsspec.config.conf["gs"].setdefault("token", _gs_token())
    for library in ("gcsfs", "s3fs"):  # what they log, with a traceback, is raised as well
        logging.getLogger(library).setLevel(logging.CRITICAL)
    return backend.fsspec_backend.fs(f"{scheme}://")


@functools.cache
def _connect(scheme: str, bucket: str) -> None:
    from fsspec import asyn

    url = f"{scheme}://{bucket}"
    with _reporting(f"list {url}"):
        fs = _filesystem(scheme)
        try:
            if scheme == "gs":
                asyn.sync(fs.loop, fs._do_list_objects, bucket, max_results=1, timeout=_PATIENCE)
            else:
                asyn.sync(fs.loop, fs._ls, bucket, timeout=_PATIENCE)
        except FileNotFoundError as error:
            raise UserError(f"the bucket {url} does not exist: create it, or correct its name") from error


def _of(path: pathlib.PurePath) -> tuple[Any, str]:
    # The file system of a path, and the path as it takes it.
    url = str(path)
    return _filesystem(url.partition(":")[0]), url


@contextlib.contextmanager
def _reporting(action: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # gcsfs, s3fs, aiohttp and google.auth raise many kinds
        _report(action, error)


def _is_denied(error: Exception) -> bool:
    denied = isinstance(error, PermissionError) or getattr(error, "code", None) in (401, 403)
    return denied or str(error).startswith("Forbidden")


def is_storage_failure(error: BaseException) -> bool:
    """Returns whether an exception is one of the libraries that access buckets."""
    return type(error).__module__.startswith(("gcsfs.", "s3fs.", "aiohttp.", "botocore.", "google.auth."))


def _report(action: str, error: Exception) -> NoReturn:
    if isinstance(error, FileNotFoundError):
        raise UserError(f"cannot {action}: it does not exist") from error
    if isinstance(error, TimeoutError):
        raise StorageError(f"cannot {action}: no answer within {_PATIENCE:.0f} s; check the network") from error
    reason = " ".join(str(error).split()) or type(error).__name__
    if _is_denied(error):
        login = (
            "set AWS_PROFILE or run `aws sso login`"
            if "s3://" in action
            else "run `gcloud auth application-default login`"
        )
        raise UserError(f"cannot {action}: no permission ({reason}); {login}, or grant the account access") from error
    raise StorageError(f"cannot {action}: {reason}") from error


def check_writable(folder: pathlib.PurePath) -> None:
    """Checks that objects can be created in a folder of a bucket.

    It leaves no trace, except in a bucket that lets nothing be deleted: there, one empty object for each folder.

    Raises:
      UserError: they cannot.
    """
    _check_bucket_writable("/".join(str(folder).split("/")[:3]), str(folder))


@functools.cache
def _check_bucket_writable(bucket: str, folder: str) -> None:
    from fsspec import asyn

    fs = _filesystem(bucket.partition(":")[0])
    probe = f"{folder}/{_PROBE}"
    with _reporting(f"write to {folder}"):
        try:
            asyn.sync(fs.loop, fs._pipe_file, probe, b"", timeout=_PATIENCE)
        except Exception as error:
            # An earlier process may have left the object in a bucket in which nothing can be deleted or replaced.
            there = False
            with contextlib.suppress(Exception):
                there = _is_denied(error) and fs.exists(probe)
            if not there:
                raise
        with contextlib.suppress(Exception):  # what matters is that objects can be created
            asyn.sync(fs.loop, fs._rm_file, probe, timeout=_PATIENCE)


def upload(file: str | os.PathLike[str], path: pathlib.PurePath) -> None:
    """Copies a local file into a bucket. It replaces an object of that name when it is complete.

    Raises:
      UserError: it cannot be written.
    """
    fs, url = _of(path)
    with _reporting(f"write {url}"):
        fs.put_file(os.fspath(file), url)


def download(path: pathlib.PurePath, file: pathlib.Path) -> None:
    """Copies an object to a local file.

    Raises:
      UserError: it cannot be read.
    """
    fs, url = _of(path)
    with _reporting(f"read {url}"):
        fs.get_file(url, str(file))


def read_start(path: pathlib.PurePath, count: int) -> bytes:
    """Returns the first bytes of an object.

    Args:
      path: the object.
      count: how many bytes to return, or fewer if the object has fewer.

    Raises:
      UserError: it cannot be read.
    """
    fs, url = _of(path)
    with _reporting(f"read {url}"):
        return fs.cat_file(url, end=count)


def exists(path: pathlib.PurePath) -> bool:
    """Returns whether there is an object or a folder at a path.

    Raises:
      UserError: the bucket does not tell.
    """
    fs, url = _of(path)
    with _reporting(f"read {url}"):
        return fs.exists(url)


def is_folder(path: pathlib.PurePath) -> bool:
    """Returns whether a path is a folder, which is the beginning of the names of objects.

    Raises:
      UserError: the bucket does not tell.
    """
    fs, url = _of(path)
    with _reporting(f"read {url}"):
        return fs.isdir(url)


def size(path: pathlib.PurePath) -> int:
    """Returns the size of an object in bytes.

    Raises:
      UserError: it does not exist or cannot be read.
    """
    fs, url = _of(path)
    with _reporting(f"read {url}"):
        return fs.info(url)["size"]


def list_files(folder: pathlib.PurePath) -> dict[str, BucketFile]:
    """Returns the objects in a folder, at any depth, by their names relative to it, in order.

    Raises:
      UserError: the folder cannot be listed, or an object has a name that no file can have.
    """
    fs, url = _of(folder)
    with _reporting(f"list {url}"):
        found = fs.find(url, detail=True)
    prefix = url.partition("://")[2] + "/"
    files = {}
    for name, info in sorted(found.items()):
        if not name.startswith(prefix) or name.endswith("/"):  # the latter mark empty folders
            continue
        relative = name.removeprefix(prefix)
        if any(part in ("", ".", "..") for part in relative.split("/")):
            raise UserError(f"{url} contains an object whose name is not that of a file: rename {relative!r}")
        modified = info.get("mtime") or info.get("LastModified")
        version = info.get("generation") or info.get("ETag")
        files[relative] = BucketFile(info["size"], modified.timestamp() if modified else 0.0, str(version))
    return files


def matching(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the objects and folders that match a pattern such as `gs://bucket/photos/*.png`, in order.

    Args:
      path: a path in a bucket, with `*`, `?`, `[...]` or `**` in its name.

    Raises:
      UserError: the bucket cannot be listed.
    """
    fs, url = _of(path)
    scheme = url.partition(":")[0]
    with _reporting(f"list {url}"):
        return [type(path)(f"{scheme}://{name}") for name in sorted(fs.glob(url))]


def remove(path: pathlib.PurePath) -> None:
    """Deletes an object, if it exists.

    Raises:
      UserError: it cannot be deleted.
    """
    fs, url = _of(path)
    with _reporting(f"delete {url}"), contextlib.suppress(FileNotFoundError):
        fs.rm_file(url)


def move_folder(folder: pathlib.PurePath, target: pathlib.PurePath) -> None:
    """Moves the objects of a folder to another folder of the same bucket, by copying them.

    Raises:
      UserError: one of them cannot be copied or deleted.
    """
    fs, url = _of(folder)
    with _reporting(f"move {url} to {target}"):
        for name in list_files(folder):  # one by one: in the name of a folder, `*` would be a pattern
            fs.cp_file(f"{url}/{name}", f"{target}/{name}")
            fs.rm_file(f"{url}/{name}")


def _machine() -> str:
    # Identifies what process numbers are relative to: the start of the machine, and the container.
    parts = [platform.node()]
    for read in (
        lambda: pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        with contextlib.suppress(OSError):
            parts.append(read())
    return " ".join(parts)


class Claim:
    """The exclusive use of a folder in a bucket, as a context manager.

    Object storage has no locks that end with their process. A claim is an object that its owner refreshes every few
    seconds. Whoever finds one takes it over at once if its owner ran on this machine and is dead; otherwise it first
    watches the object, for `_EXPIRY` seconds. So a killed process leaves nothing behind that has to be removed by hand.
    The clocks of two machines are never compared.

    Args:
      path: the object, such as `gs://bucket/run/lock`.

    Raises:
      BlockingIOError: on entry, the owner of the claim is alive.
    """

    def __init__(self, path: pathlib.Path):
        import psutil

        self._fs, self._url = _of(path)
        process = psutil.Process()
        self._mine = {
            "host": platform.node(),
            "machine": _machine(),
            "process": process.pid,
            "started": process.create_time(),
            "claim": uuid.uuid4().hex,
        }
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_refreshing, daemon=True)

    def _read(self) -> dict[str, Any] | None:
        with _reporting(f"read {self._url}"):
            try:
                text = self._fs.cat_file(self._url)
            except FileNotFoundError:
                return None
        try:
            owner = json.loads(text)
        except ValueError:
            return {}
        return owner if isinstance(owner, dict) else {}

    def _write(self, mode: str = "overwrite") -> None:
        content = json.dumps({**self._mine, "refreshed": time.time()}).encode()
        faster = False
        with _reporting(f"write {self._url}"):
            try:
                self._fs.pipe_file(self._url, content, mode=mode)
            except FileExistsError:
                faster = True
        if faster:  # another process
            raise BlockingIOError

    def _is_dead(self, owner: dict[str, Any]) -> bool:
        import psutil

        if owner.get("machine") != self._mine["machine"]:
            return "machine" not in owner  # damaged
        try:
            return psutil.Process(owner.get("process")).create_time() != owner.get("started")
        except (psutil.NoSuchProcess, TypeError, ValueError):
            return True

    def __enter__(self) -> "Claim":
        from a2f_jax.progress import say  # imports tqdm, which commands without a bucket need not wait for

        owner = self._read()
        if owner is not None and not self._is_dead(owner):
            say(
                f"waiting up to {_EXPIRY:.0f} s to see whether process {owner.get('process')} on {owner.get('host')} "
                f"still uses {self._url.rpartition('/')[0]}"
            )
            until = time.monotonic() + _EXPIRY
            while time.monotonic() < until:
                time.sleep(min(1.0, _EXPIRY))
                now = self._read()
                if now is None:
                    break
                if now != owner:
                    raise BlockingIOError
        self._write("create" if owner is None else "overwrite")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(UserError):  # the claim expires all the same
            if self._is_mine():
                self._fs.rm_file(self._url)

    def _is_mine(self) -> bool:
        owner = self._read()
        return owner is not None and owner.get("claim") == self._mine["claim"]

    def _keep_refreshing(self) -> None:
        while not self._ended.wait(_REFRESH):
            with contextlib.suppress(UserError, BlockingIOError):  # `check` reports what does not pass
                if not self._is_mine():
                    return
                self._write()

    def check(self) -> None:
        """Checks that no other process has taken over, because this one could not refresh the claim for long.

        Raises:
          UserError: another process has, or the bucket does not answer.
        """
        if not self._is_mine():
            raise UserError(f"another run has taken over {self._url.rpartition('/')[0]}: this one stops")
