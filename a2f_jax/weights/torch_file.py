"""Reads PyTorch state dicts without PyTorch, and rejects everything that a state dict does not need.

A `.pt` file is a pickle, and a pickle can call any function. This reader resolves only the few names listed in
`_ALLOWED`, each to a harmless function or type, so a file cannot run code of its own.

Both formats of `torch.save` are supported: the legacy format of PyTorch before 1.6 (a sequence of pickles followed by
the raw storages) and the zip archive (`data.pkl` and one member per storage).
"""

import collections
import dataclasses
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from a2f_jax.errors import UserError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}


@dataclasses.dataclass(frozen=True)
class _StorageType:
    dtype: np.dtype


@dataclasses.dataclass
class _Storage:
    """A flat buffer. In the legacy format, `values` follow after the pickle that refers to the buffer."""

    dtype: np.dtype
    size: int
    values: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A strided view of a storage, as described by the arguments of PyTorch's `_rebuild_tensor_v2`."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        values = self.storage.values
        assert values is not None
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        count = int(np.prod(self.shape))
        negative = min((self.offset, *self.shape, *self.strides)) < 0
        # Views with strides of 0 are rejected too: they would let a small file claim a huge tensor.
        if negative or count > values.size or (count and last >= values.size):
            raise pickle.UnpicklingError("a tensor extends beyond its storage")
        step = values.itemsize
        return np.lib.stride_tricks.as_strided(
            values[self.offset :], self.shape, [s * step for s in self.strides], writeable=False
        ).copy()


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise pickle.UnpicklingError("a tensor has no storage")
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    **{("torch", name): _StorageType(dtype) for name, dtype in _DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Resolves only names in `_ALLOWED`, and storages through `load_storage(key, dtype, size)`."""

    def __init__(self, file: BinaryIO, load_storage: Callable[[str, np.dtype, int], _Storage] | None = None):
        super().__init__(file)
        self._load_storage = load_storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which does not belong in a state dict")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", _StorageType(dtype), str(key), _, int(size), *view) if (
                self._load_storage and size >= 0 and view in ([], [None])
            ):
                return self._load_storage(key, dtype, size)
        raise pickle.UnpicklingError("it refers to something other than a tensor's storage")


def _read_zip(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        pickles = [n for n in archive.namelist() if n.endswith("data.pkl")]
        if len(pickles) != 1:
            raise pickle.UnpicklingError("the archive has no data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise pickle.UnpicklingError("it is big-endian")

        def load_storage(key: str, dtype: np.dtype, size: int) -> _Storage:
            member = f"{root}data/{key}"
            # Checked before reading, so that a small file cannot cause a large allocation. PyTorch does not compress.
            about = archive.getinfo(member)
            if about.compress_type != zipfile.ZIP_STORED:
                raise pickle.UnpicklingError(f"storage {key} is compressed, unlike those that PyTorch writes")
            if about.file_size != size * dtype.itemsize:
                raise pickle.UnpicklingError(f"storage {key} has the wrong length")
            return _Storage(dtype, size, np.frombuffer(archive.read(member), dtype))

        return _Unpickler(io.BytesIO(archive.read(pickles[0])), load_storage).load()


def _read_legacy(file: BinaryIO) -> Any:
    magic, _protocol, system = (_Unpickler(file).load() for _ in range(3))
    if magic != _LEGACY_MAGIC:
        raise pickle.UnpicklingError("it has no PyTorch header")
    if not system.get("little_endian", True):
        raise pickle.UnpicklingError("it is big-endian")
    storages: dict[str, _Storage] = {}

    def load_storage(key: str, dtype: np.dtype, size: int) -> _Storage:
        return storages.setdefault(key, _Storage(dtype, size))

    tree = _Unpickler(file, load_storage).load()
    for key in _Unpickler(file).load():
        storage = storages[key]
        (size,) = struct.unpack("<q", file.read(8))
        length = storage.size * storage.dtype.itemsize
        # Checked before reading, so that a small file cannot cause a large allocation.
        if size != storage.size or length > os.fstat(file.fileno()).st_size - file.tell():
            raise pickle.UnpicklingError(f"storage {key} has the wrong length")
        storage.values = np.frombuffer(file.read(length), storage.dtype)
    if any(storage.values is None for storage in storages.values()):
        raise pickle.UnpicklingError("the values of a tensor are missing")
    return tree


# What training scripts wrap state dicts in, the averaged weights first.
_WRAPPERS = ("params_ema", "params", "state_dict", "model")


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the tensors of a file written by `torch.save(model.state_dict(), path)`.

    A state dict that is wrapped in another dictionary, as `"params_ema"`, `"params"`, `"state_dict"` or `"model"`, is
    unwrapped.

    Args:
      path: the file, in the legacy or the zip format.

    Returns:
      The tensors by name, in the order and with the dtypes of the file.

    Raises:
      UserError: the file cannot be read, is not a state dict, is damaged, or refers to anything but tensors.
    """
    try:
        with open(path, "rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            tree = _read_zip(file) if zipped else _read_legacy(file)
        if not isinstance(tree, dict):
            raise pickle.UnpicklingError("it does not contain a dictionary")
        tree = next((tree[key] for key in _WRAPPERS if isinstance(tree.get(key), dict)), tree)
        for key, value in tree.items():
            if not isinstance(value, _Tensor):
                raise pickle.UnpicklingError(f"its entry {key!r} is not a tensor")
        return {str(key): value.array() for key, value in tree.items()}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle can raise almost anything
        reason = str(error) if isinstance(error, pickle.UnpicklingError) else "it is damaged"
        raise UserError(f"{path} is not a PyTorch state dict: {reason}") from error
