"""The restricted reader of PyTorch files, on valid and malicious files in both formats."""

import collections
import io
import os
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from a2f_jax.errors import UserError
from a2f_jax.model import load
from a2f_jax.weights.torch_file import _rebuild_tensor, read_state_dict

TENSORS = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "b": np.array([1.5, -2.0], np.float64),
    "c": np.array(7, np.int64),
}
STORAGES = {"float32": "FloatStorage", "float64": "DoubleStorage", "int64": "LongStorage"}


class Global:
    """Pickles as a reference to a name in a module that need not exist."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class StateDictPickler(pickle._Pickler):
    """Writes tensors as `torch.save` does: as calls of a PyTorch function on storages given by persistent ids."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012 (pickle defines it as a class attribute)

    def __init__(self, file, suffix):
        super().__init__(file, protocol=2)
        self.suffix = suffix

    def persistent_id(self, obj):
        return obj.pid + self.suffix if isinstance(obj, Storage) else None

    def save_global_reference(self, obj):
        self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())

    dispatch[Global] = save_global_reference

    def save_tensor(self, obj):
        self.save(Global("torch._utils", "_rebuild_tensor_v2"))
        self.save((obj.storage, obj.offset, obj.shape, obj.strides, False, collections.OrderedDict()))
        self.write(pickle.REDUCE)


class Storage:
    def __init__(self, key, values):
        kind = Global("torch", STORAGES[values.dtype.name])
        self.values, self.pid = values, ("storage", kind, key, "cpu", values.size)


class Tensor:
    def __init__(self, storage, offset, shape, strides):
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides


StateDictPickler.dispatch[Tensor] = StateDictPickler.save_tensor


def contiguous(key, array):
    strides = tuple(s // array.itemsize for s in array.strides)
    return Tensor(Storage(key, array.reshape(-1)), 0, array.shape, strides)


def dumps(obj, suffix):
    file = io.BytesIO()
    StateDictPickler(file, suffix).dump(obj)
    return file.getvalue()


def write_legacy(path, tree, storages):
    with path.open("wb") as file:
        for header in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}):
            pickle.dump(header, file, protocol=2)
        file.write(dumps(tree, (None,)))
        pickle.dump([s.pid[2] for s in storages], file, protocol=2)
        for s in storages:
            file.write(struct.pack("<q", s.values.size) + s.values.tobytes())


def write_zip(path, tree, storages):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", dumps(tree, ()))
        archive.writestr("archive/byteorder", "little")
        for s in storages:
            archive.writestr(f"archive/data/{s.pid[2]}", s.values.tobytes())


@pytest.fixture(params=[write_legacy, write_zip], ids=["legacy", "zip"])
def write(request, tmp_path):
    def writer(tree):
        storages = {t.storage.pid[2]: t.storage for t in tree.values() if isinstance(t, Tensor)}
        request.param(tmp_path / "weights.pt", tree, list(storages.values()))
        return tmp_path / "weights.pt"

    return writer


def test_tensors_are_read_with_their_values_and_dtypes(write):
    tree = collections.OrderedDict((k, contiguous(str(i), v)) for i, (k, v) in enumerate(TENSORS.items()))
    found = read_state_dict(write(tree))
    assert list(found) == list(TENSORS)
    for name, value in TENSORS.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def test_views_of_one_storage_are_read_separately(write):
    values = np.arange(12, dtype=np.float32)
    storage = Storage("0", values)
    tree = {"transposed": Tensor(storage, 2, (2, 3), (1, 2)), "tail": Tensor(storage, 9, (3,), (1,))}
    found = read_state_dict(write(tree))
    np.testing.assert_array_equal(found["transposed"], values[2:8].reshape(3, 2).T)
    np.testing.assert_array_equal(found["tail"], values[9:])


def test_views_of_one_storage_that_would_take_gigabytes_are_refused(write, monkeypatch):
    monkeypatch.setattr("a2f_jax.weights.size_limit.LARGEST", 100_000)
    storage = Storage("0", np.zeros(1000, np.float32))
    views = {str(i): Tensor(storage, 0, (10, 100), (100, 1)) for i in range(30)}
    assert len(read_state_dict(write(dict(list(views.items())[:20])))) == 20
    with pytest.raises(UserError, match="its tensors have 120,000 bytes, more than those of any network here"):
        read_state_dict(write(views))


def test_a_function_call_in_a_pickle_is_refused_by_name_and_not_run(write, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'attacked'}",)

    path = write({"a": Attack()})
    with pytest.raises(UserError, match=r"(posix|nt)\.system"):
        read_state_dict(path)
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (5,), (1,)), (3, (2,), (1,)), (0, (10**9, 4), (0, 1)), (-1, (2,), (1,)), (0, (2,), (-1,))],
)
def test_views_beyond_their_storage_are_refused(write, offset, shape, strides):
    storage = Storage("0", np.zeros(4, np.float32))
    with pytest.raises(UserError, match="beyond its storage"):
        read_state_dict(write({"a": Tensor(storage, offset, shape, strides)}))


def test_entries_that_are_not_tensors_are_named(write):
    with pytest.raises(UserError, match="'epoch' is not a tensor"):
        read_state_dict(write({"a": contiguous("0", TENSORS["b"]), "epoch": 3}))


def test_every_truncation_is_reported_in_one_line(write):
    path = write({"a": contiguous("0", TENSORS["a.weight"])})
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=str(path)) as error:
            read_state_dict(path)
        assert "\n" not in str(error.value)


def test_a_storage_that_claims_to_be_huge_is_refused(write):
    storage = Storage("0", np.zeros(4, np.float32))
    storage.pid = (*storage.pid[:4], 2**40)
    with pytest.raises(UserError, match="wrong length"):
        read_state_dict(write({"a": Tensor(storage, 0, (4,), (1,))}))


def test_a_compressed_storage_is_refused_before_it_is_unpacked(tmp_path):
    """PyTorch stores them as they are, and a few compressed megabytes can unpack to gigabytes."""
    path, tensor = tmp_path / "weights.pt", contiguous("0", TENSORS["b"])
    write_zip(path, {"a": tensor}, [tensor.storage])
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content, zipfile.ZIP_DEFLATED if member.endswith("/0") else zipfile.ZIP_STORED)
    with pytest.raises(UserError, match="archive/data/0 is compressed"):
        read_state_dict(path)


@pytest.mark.parametrize("name", ["weights.bin", "weights.safetensors", "weights"])
def test_pytorch_files_are_recognized_by_their_contents(write, name, tmp_path):
    path = write({"foreign": contiguous("0", TENSORS["b"])}).rename(tmp_path / name)
    with pytest.raises(UserError, match="cannot be used: tensor 'foreign' does not belong to A2F"):
        load(path)


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_state_dict(tmp_path / "none.pt")


def _zip_of(path, content, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)


NESTED = b")" + b"\x85" * 1_000_000  # a tuple in a tuple in a tuple ...


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x80\x02}" + NESTED + b"Ns.", "a key in it is not a name or a number"),
        (b"\x80\x02}(" + NESTED + b"Nu.", "a key in it is not a name or a number"),
        (b"\x80\x02(" + NESTED + b"Nd.", "a key in it is not a name or a number"),
        (b"\x80\x02ccollections\nOrderedDict\n]" + NESTED + b"N\x86a\x85R.", "a key in it is not a name"),
        (b"\x80\x04\x8f(" + NESTED + b"\x90.", "it is damaged"),  # a set
    ],
    ids=["item", "items", "dict", "ordered", "set"],
)
def test_a_pickle_that_would_overflow_the_stack_is_refused(tmp_path, content, reason):
    path = tmp_path / "w.pt"
    _zip_of(path, content)
    with pytest.raises(UserError, match=reason):
        read_state_dict(path)


def test_a_few_bytes_do_not_take_gigabytes(tmp_path):
    path = tmp_path / "w.pt"
    _zip_of(path, b"\x80\x02Nr" + struct.pack("<I", 2**32 - 1) + b".")  # remembered under the largest number
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="it does not contain a dictionary"):
            read_state_dict(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    _zip_of(path, bytes(1 << 30), zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match=r"data\.pkl is compressed"):
        read_state_dict(path)


def test_a_file_cannot_change_how_later_files_are_read(write):
    """BUILD sets attributes, also of the types and functions that a file may name."""
    tensor = contiguous("0", TENSORS["a.weight"])
    path = write({"a": tensor})
    before = read_state_dict(path)["a"]
    for target in (b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n"):
        hostile = path.with_name("hostile.pt")
        attributes = b"}(X\x05\x00\x00\x00dtypeX\x01\x00\x00\x00iX\x0c\x00\x00\x00__defaults__Nu"
        _zip_of(hostile, b"\x80\x02" + target + attributes + b"b.")
        with pytest.raises(UserError):
            read_state_dict(hostile)
    assert not hasattr(_rebuild_tensor, "dtype")
    np.testing.assert_array_equal(read_state_dict(path)["a"], before)


def test_keys_of_other_entries_may_be_any_plain_values(write):
    tensor = contiguous("0", TENSORS["a.weight"])
    path = write({"state_dict": {"a": tensor}, "notes": {1: 2, 0.1: 3, None: 4, (3, "x"): 5}, "t": tensor})
    np.testing.assert_array_equal(read_state_dict(path)["a"], TENSORS["a.weight"])
