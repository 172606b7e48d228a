"""Reads PyTorch state dicts without PyTorch, and rejects everything that a state dict does not need.

A `.pt` file is a pickle, and a pickle can call any function. This reader executes only the operations that a state dict
needs, and resolves only the few names listed in `_ALLOWED`, each to a harmless function or type. So a file can neither
run code of its own nor change anything outside of what is read.

Both formats of `torch.save` are supported: the legacy format of PyTorch before 1.6 (a sequence of pickles followed by
the raw storages) and the zip archive (`data.pkl` and one member per storage).
"""

import collections
import dataclasses
import io
import math
import os
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, ClassVar

import ml_dtypes
import numpy as np

from a2f_jax.errors import UserError, system_failure
from a2f_jax.weights.size_limit import TooLarge, check_file_size, check_tensor_size

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

    @property
    def size(self) -> int:
        """Bytes of the tensor as an array of its own; of one that extends beyond its storage, those of the storage."""
        return min(math.prod(self.shape), self.storage.size) * self.storage.dtype.itemsize

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


def _ordered_dict(pairs: Any = ()) -> collections.OrderedDict[Any, Any]:
    for key, _ in pairs:  # which Python 2 stored like this
        _check_key(key)
    return collections.OrderedDict(pairs)


def _check_key(key: Any) -> None:
    # The hash of a tuple that is nested a million times would overflow the stack. Large numbers can have equal hashes.
    for part in key if type(key) is tuple else (key,):
        if not (isinstance(part, str | float | None) or (isinstance(part, int) and abs(part) < 1 << 60)):
            raise pickle.UnpicklingError("a key in it is not a name or a number")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    **{("torch", name): _StorageType(dtype) for name, dtype in _DTYPES.items()},
}


_OPERATIONS = """
    PROTO FRAME STOP MARK POP POP_MARK DUP
    PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    BINBYTES SHORT_BINBYTES BINBYTES8
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT DICT SETITEM SETITEMS
    GLOBAL STACK_GLOBAL REDUCE BUILD PERSID BINPERSID
"""


_STANDARD: Mapping[int, Callable[[Any], None]] = pickle._Unpickler.dispatch


class _Unpickler(pickle._Unpickler):
    """Executes only `_OPERATIONS`, resolves only names in `_ALLOWED`, and calls `load_storage(key, dtype, size)`.

    It is based on the unpickler that is written in Python because, unlike `pickle.Unpickler`, that takes no more memory
    than the length of a file justifies.
    """

    stack: list[Any]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        code: _STANDARD[code] for code in (getattr(pickle, name)[0] for name in _OPERATIONS.split())
    }

    def __init__(self, file: BinaryIO, load_storage: Callable[[str, np.dtype, int], _Storage] | None = None):
        super().__init__(file)
        self._load_storage = load_storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which does not belong in a state dict")
        return _ALLOWED[module, name]

    def _load_build(self) -> None:
        # The attribute `_metadata` of a state dict is not needed, and those of other objects would change this reader.
        self.stack.pop()

    def _load_setitem(self) -> None:
        _check_key(self.stack[-2])
        _STANDARD[pickle.SETITEM[0]](self)

    def _load_setitems(self) -> None:
        for key in self.stack[::2]:
            _check_key(key)
        _STANDARD[pickle.SETITEMS[0]](self)

    def _load_dict(self) -> None:
        for key in self.stack[::2]:
            _check_key(key)
        _STANDARD[pickle.DICT[0]](self)

    dispatch |= {
        pickle.BUILD[0]: _load_build,
        pickle.SETITEM[0]: _load_setitem,
        pickle.SETITEMS[0]: _load_setitems,
        pickle.DICT[0]: _load_dict,
    }

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", _StorageType(dtype), str(key), _, int(size), *view) if (
                self._load_storage and size >= 0 and view in ([], [None])
            ):
                return self._load_storage(key, dtype, size)
        raise pickle.UnpicklingError("it refers to something other than a tensor's storage")


_LARGEST_PICKLE = 16 << 20  # bytes; that of a state dict has about 100 per tensor


def _read_member(archive: zipfile.ZipFile, name: str, size: int | None = None) -> bytes:
    # Checked before reading, so that a small file cannot cause a large allocation. PyTorch does not compress.
    about = archive.getinfo(name)
    if about.compress_type != zipfile.ZIP_STORED:
        raise pickle.UnpicklingError(f"{name} is compressed, unlike what PyTorch writes")
    if about.file_size != size if size is not None else about.file_size > _LARGEST_PICKLE:
        raise pickle.UnpicklingError(f"{name} has the wrong length")
    return archive.read(name)


def _read_zip(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        pickles = [n for n in archive.namelist() if n.endswith("data.pkl")]
        if len(pickles) != 1:
            raise pickle.UnpicklingError("the archive has no data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and _read_member(archive, f"{root}byteorder") != b"little":
            raise pickle.UnpicklingError("it is big-endian")

        def load_storage(key: str, dtype: np.dtype, size: int) -> _Storage:
            content = _read_member(archive, f"{root}data/{key}", size * dtype.itemsize)
            return _Storage(dtype, size, np.frombuffer(content, dtype))

        return _Unpickler(io.BytesIO(_read_member(archive, pickles[0])), load_storage).load()


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
        check_file_size(pathlib.Path(path))
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
        # Tensors may share a storage, so that a small file could make many large copies.
        check_tensor_size(sum(value.size for value in tree.values()))
        return {str(key): value.array() for key, value in tree.items()}
    except Exception as error:  # a damaged pickle can raise almost anything
        failure = error.strerror if isinstance(error, FileNotFoundError) else system_failure(error)
        if failure:
            raise UserError(f"cannot read {path}: {failure}") from error
        reason = str(error) if isinstance(error, pickle.UnpicklingError | TooLarge) else "it is damaged"
        raise UserError(f"{path} is not a PyTorch state dict: {reason}") from error
