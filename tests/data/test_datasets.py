import contextlib
import functools
import http.server
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
from typing import ClassVar

import numpy as np
import pytest

from a2f_jax.data import datasets, matlab_bicubic, open_pairs, prepare
from a2f_jax.data.sources import Source, find
from a2f_jax.errors import UserError
from a2f_jax.images import write_rgb


def _assert_same(pairs, sources, scale):
    """Checks that prepared pairs equal the pairs read from their sources."""
    assert len(pairs) == len(sources)
    for pair, source in zip(pairs, sources, strict=True):
        want = source.read(scale)
        assert pair.name == want.name
        np.testing.assert_array_equal(pair.lr, want.lr)
        np.testing.assert_array_equal(pair.hr, want.hr)


def _files(folder):
    return {f: f.stat().st_mtime_ns for f in folder.rglob("*") if f.is_file()}


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def set5(tmp_path, picture):
    """A folder with a ×2 `Set5` of two images in the layout of SelfExSR."""
    for i in (1, 2):
        name = tmp_path / "benchmarks" / "Set5" / "image_SRF_2" / f"img_{i:03}_SRF_2"
        write_rgb(f"{name}_HR.png", picture(i))
        write_rgb(f"{name}_LR.png", picture(10 + i, 12, 18))
    return tmp_path / "benchmarks"


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_photographs_are_stored_with_lr_computed_from_them(photos, data_dir, scale):
    folder = prepare("My-Photos", scale=scale, data_dir=data_dir, source=photos, validation=3)
    assert folder == data_dir / "my_photos" / f"x{scale}" / "1.0.0"
    splits = find("my_photos", photos, scale, 3)
    for split, count in (("train", 7), ("validation", 3)):
        pairs = open_pairs("my_photos", scale=scale, split=split, data_dir=data_dir)
        assert len(pairs) == count
        _assert_same(pairs, splits[split], scale)


@pytest.mark.parametrize("packed", [True, False])
def test_div2k_is_stored_as_published(div2k, data_dir, packed):
    source = div2k(packed)
    prepare("div2k", scale=4, data_dir=data_dir, source=source)
    for split, sources in find("div2k", source, 4, 0).items():
        _assert_same(open_pairs("div2k", scale=4, split=split, data_dir=data_dir), sources, 4)


class _Server(http.server.SimpleHTTPRequestHandler):
    """Serves files, honors range requests, and drops the connection once per entry in `failures`."""

    failures: ClassVar[list[str]] = []
    requests: ClassVar[list[tuple[str, int]]] = []

    def do_GET(self):
        content = pathlib.Path(self.translate_path(self.path)).read_bytes()
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.requests.append((pathlib.Path(self.path).name, start))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : len(content) // 2 if self.failures and self.failures.pop() else None])

    def log_message(self, *_):
        pass


@pytest.fixture
def div2k_server(div2k, monkeypatch):
    archives = div2k(packed=True)
    _Server.requests.clear()
    handler = functools.partial(_Server, directory=str(archives))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(datasets, "_DIV2K_URL", f"http://127.0.0.1:{server.server_port}/")
        yield archives
        server.shutdown()


def test_div2k_is_downloaded(div2k_server, data_dir):
    prepare("div2k", scale=2, data_dir=data_dir)
    validation = open_pairs("div2k", scale=2, data_dir=data_dir)
    _assert_same(validation, find("div2k", div2k_server, 2, 0)["validation"], 2)
    assert len(_Server.requests) == 4


def test_an_interrupted_download_is_resumed(div2k_server, data_dir):
    _Server.failures.append("drop the connection")
    with pytest.raises(UserError, match="the connection was lost"):
        prepare("div2k", scale=4, data_dir=data_dir)
    prepare("div2k", scale=4, data_dir=data_dir)
    half = (div2k_server / "DIV2K_train_HR.zip").stat().st_size // 2
    assert _Server.requests[:2] == [("DIV2K_train_HR.zip", 0), ("DIV2K_train_HR.zip", half)]
    train = open_pairs("div2k", scale=4, split="train", data_dir=data_dir)
    _assert_same(train, find("div2k", div2k_server, 4, 0)["train"], 4)


def test_a_failed_download_names_the_files_to_download(data_dir, monkeypatch):
    monkeypatch.setattr(datasets, "_DIV2K_URL", "http://127.0.0.1:9/")
    with pytest.raises(
        UserError, match=r"Connection refused.*download DIV2K_train_HR\.zip, .*_X3\.zip yourself.*source="
    ):
        prepare("div2k", scale=3, data_dir=data_dir)


def test_the_sample_is_prepared_when_it_is_first_opened(data_dir):
    pairs = open_pairs("sample", scale=4, data_dir=data_dir)
    assert [pair.name for pair in pairs] == [
        "astronaut",
        "chelsea",
        "coffee",
        "hubble_deep_field",
        "motorcycle_left",
        "rocket",
    ]
    _assert_same(pairs, find("sample", None, 4, 0)["validation"], 4)
    before = _files(data_dir)
    assert len(open_pairs("sample", scale=4, split="train", data_dir=data_dir)) == 6
    assert _files(data_dir) == before


def test_benchmark_sets_can_be_read_with_or_without_preparation(set5, data_dir):
    prepare("set5", scale=2, data_dir=data_dir, source=set5)
    sources = find("set5", set5, 2, 0)["test"]
    for folder in (data_dir, set5, set5 / "Set5"):
        for split in (None, "test"):
            _assert_same(open_pairs("Set5", scale=2, split=split, data_dir=folder), sources, 2)


def test_the_default_folder_is_that_of_the_environment(photos, data_dir, monkeypatch):
    monkeypatch.setenv("A2F_DATA_DIR", str(data_dir))
    prepare("photos", scale=2, source=photos, validation=1)
    assert len(open_pairs("photos", scale=2)) == 1
    assert (data_dir / "photos").is_dir()


def test_errors_about_missing_datasets_and_splits_name_the_remedy(photos, set5, data_dir):
    prepare("photos", scale=2, data_dir=data_dir, source=photos)
    for name, scale, split, folder, message in (
        ("photos", 2, None, data_dir, r"no split 'validation', only train: .*--validation N"),
        ("photos", 4, None, data_dir, rf"run `a2f data prepare photos --scale 4 --source DIR --data-dir {data_dir}`"),
        ("div2k", 4, None, data_dir, rf"run `a2f data prepare div2k --scale 4 --data-dir {data_dir}`"),
        ("set5", 2, "train", set5, "set5 has no split 'train'"),
        ("set5", 2, None, data_dir / "none", "set5 ×2 is not prepared in .*none"),
        ("set14", 2, None, set5, "does not contain set14 ×2"),
    ):
        with pytest.raises(UserError, match=message):
            open_pairs(name, scale=scale, split=split, data_dir=folder)


def test_pairs_are_a_sequence(photos, data_dir):
    prepare("photos", scale=2, data_dir=data_dir, source=photos)
    pairs = open_pairs("photos", scale=2, split="train", data_dir=data_dir)
    assert [pair.name for pair in pairs] == [f"{i}.png" for i in range(10)]
    assert pairs[-1].name == "9.png"
    for index in (10, -11):
        with pytest.raises(IndexError):
            pairs[index]


def test_repeating_a_preparation_keeps_the_dataset(photos, data_dir):
    arguments = {"scale": 2, "data_dir": data_dir, "source": photos}
    folder = prepare("photos", **arguments)
    before = _files(folder)
    assert prepare("photos", **arguments) == folder
    assert prepare("photos", scale=2, data_dir=data_dir) == folder
    assert _files(folder) == before


def test_changed_files_are_prepared_again_only_with_overwrite(photos, data_dir, picture):
    arguments = {"scale": 2, "data_dir": data_dir, "source": photos}
    before = _files(prepare("photos", **arguments))
    write_rgb(photos / "0.png", picture(100))
    with pytest.raises(UserError, match=r"was prepared from different files.*overwrite=True"):
        prepare("photos", **arguments)
    assert _files(data_dir / "photos/x2/1.0.0") == before
    prepare("photos", **arguments, overwrite=True)
    pair = open_pairs("photos", scale=2, split="train", data_dir=data_dir)[0]
    np.testing.assert_array_equal(pair.hr, picture(100))
    with pytest.raises(UserError, match="with a different number of validation images"):
        prepare("photos", **arguments, validation=2)


def test_a_dataset_is_kept_until_its_replacement_is_complete(photos, data_dir):
    arguments = {"scale": 2, "data_dir": data_dir, "source": photos}
    before = _files(prepare("photos", **arguments))
    (photos / "9.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"9\.png"):
        prepare("photos", **arguments, overwrite=True)
    assert _files(data_dir / "photos/x2/1.0.0") == before


def test_an_unreadable_image_is_named_and_no_dataset_is_left(photos, data_dir):
    (photos / "4.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"photos/4\.png"):
        prepare("photos", scale=2, data_dir=data_dir, source=photos)
    with pytest.raises(UserError, match="is not prepared"):
        open_pairs("photos", scale=2, data_dir=data_dir)
    (photos / "4.png").unlink()
    prepare("photos", scale=2, data_dir=data_dir, source=photos)
    pairs = open_pairs("photos", scale=2, split="train", data_dir=data_dir)
    _assert_same(pairs, find("photos", photos, 2, 0)["train"], 2)


def _run(code, *arguments):
    """Starts a process that prepares a dataset after running `code`."""
    code = f"""
import sys
from a2f_jax.data import datasets, prepare
from a2f_jax.data.sources import Source
{code}
prepare("photos", scale=2, source=sys.argv[1], data_dir=sys.argv[2])
"""
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stderr=subprocess.PIPE, text=True)


def test_a_preparation_that_was_killed_leaves_no_dataset_and_is_resumed(photos, data_dir, monkeypatch):
    process = _run(
        """
import os, signal, time
read = Source.read
def kill_at_the_eighth(self, scale):
    if self.name == "7.png":
        time.sleep(0.3)  # let other threads finish their images
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, scale)
Source.read = kill_at_the_eighth
""",
        photos,
        data_dir,
    )
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(UserError, match="is not prepared"):
        open_pairs("photos", scale=2, data_dir=data_dir)

    read, names = Source.read, []

    def note(self, scale):
        names.append(self.name)
        return read(self, scale)

    monkeypatch.setattr(Source, "read", note)
    folder = prepare("photos", scale=2, data_dir=data_dir, source=photos)
    monkeypatch.undo()
    assert {"7.png"} <= set(names) <= {"7.png", "8.png", "9.png"}
    pairs = open_pairs("photos", scale=2, split="train", data_dir=data_dir)
    _assert_same(pairs, find("photos", photos, 2, 0)["train"], 2)
    assert {f.name for f in folder.parent.iterdir()} == {"1.0.0", "prepare.lock"}


def test_two_processes_may_prepare_at_once(photos, data_dir):
    slow = """
import time
read = Source.read
def slowly(self, scale):
    time.sleep(0.1)
    return read(self, scale)
Source.read = slowly
"""
    processes = [_run(slow, photos, data_dir) for _ in range(2)]
    output = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], output
    assert sum("100%" in text for text in output) == 1
    pairs = open_pairs("photos", scale=2, split="train", data_dir=data_dir)
    _assert_same(pairs, find("photos", photos, 2, 0)["train"], 2)


@pytest.mark.parametrize("limit", [500, 30_000])
def test_a_full_disk_is_reported_and_no_dataset_is_left(photos, data_dir, limit):
    # To a program, a limit on the size of files looks like a full disk. 500 bytes are too few for an image, 30,000 for
    # an array_record file.
    process = _run(
        f"""
import resource
import tensorflow_datasets
from a2f_jax.errors import UserError
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.excepthook = lambda kind, error, _: print(kind.__name__, error, file=sys.stderr)
""",
        photos,
        data_dir,
    )
    output = process.communicate()[1]
    assert "UserError cannot " in output and "File too large" in output, output
    with pytest.raises(UserError, match="is not prepared"):
        open_pairs("photos", scale=2, data_dir=data_dir)


def test_a_folder_that_cannot_be_written_is_named(photos, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot prepare .*/file/photos/x2"):
        prepare("photos", scale=2, data_dir=tmp_path / "file", source=photos)


@pytest.fixture
def tfds_div2k(tmp_path, picture):
    """A DIV2K of three images as tensorflow-datasets' own builder prepares it, in `div2k/bicubic_x4/2.0.0`."""
    import tensorflow_datasets as tfds

    class Div2k(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("2.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="bicubic_x4", description="Uses bicubic_x4 data.")]  # noqa: RUF012

        def _info(self):
            features = tfds.features.FeaturesDict({"lr": tfds.features.Image(), "hr": tfds.features.Image()})
            return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("lr", "hr"))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples((1, 2)), "validation": self._generate_examples((801,))}

        def _generate_examples(self, numbers):
            for i in numbers:
                files = {"lr": tmp_path / f"{i:04}x4.png", "hr": tmp_path / f"{i:04}.png"}
                write_rgb(files["lr"], 255 - matlab_bicubic(picture(i), 1 / 4))
                write_rgb(files["hr"], picture(i))
                yield f"{i:04}x4.png", files

    Div2k.name = "div2k"
    root = tmp_path / "tensorflow_datasets"
    with contextlib.redirect_stdout(None):
        Div2k(data_dir=str(root), file_format="array_record").download_and_prepare()
    return root


def test_div2k_prepared_by_tfds_can_be_read(tfds_div2k, picture):
    assert prepare("div2k", scale=4, data_dir=tfds_div2k) == tfds_div2k / "div2k/bicubic_x4/2.0.0"
    train = open_pairs("div2k", scale=4, split="train", data_dir=tfds_div2k)
    # tfds shuffles the images and stores no names.
    first, second = sorted(train, key=lambda pair: (pair.hr != picture(1)).any())
    (third,) = open_pairs("div2k", scale=4, data_dir=tfds_div2k)
    for i, pair in ((1, first), (2, second), (801, third)):
        np.testing.assert_array_equal(pair.hr, picture(i))
        np.testing.assert_array_equal(pair.lr, 255 - matlab_bicubic(picture(i), 1 / 4))
    assert {pair.name for pair in train} == {"0000", "0001"}


def test_div2k_prepared_by_tfds_is_not_prepared_again(tfds_div2k, data_dir):
    with pytest.raises(UserError, match=f"is already prepared: use data_dir={tfds_div2k}"):
        prepare("div2k", scale=4, data_dir=data_dir, source=tfds_div2k)


def test_tfrecord_files_are_refused(tfds_div2k):
    folder = tfds_div2k / "div2k/bicubic_x4/2.0.0"
    info = json.loads((folder / "dataset_info.json").read_text())
    assert info["fileFormat"] == "array_record"
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    for file in folder.glob("*array_record*"):
        file.rename(folder / file.name.replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match=r"bicubic_x4/2\.0\.0 is not in array_record format: prepare it again"):
        open_pairs("div2k", scale=4, data_dir=tfds_div2k)


def _flip(file: pathlib.Path, at: int):
    content = bytearray(file.read_bytes())
    content[at] ^= 255
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "dataset_info.json").write_text("{"),
        lambda folder: (folder / "photos-train.array_record-00000-of-00001").unlink(),
        lambda folder: os.truncate(folder / "photos-train.array_record-00000-of-00001", 20_000),
        lambda folder: _flip(folder / "photos-train.array_record-00000-of-00001", 300),
    ],
    ids=["info", "missing", "truncated", "flipped"],
)
def test_a_damaged_dataset_is_named(photos, data_dir, damage):
    folder = prepare("photos", scale=2, data_dir=data_dir, source=photos)
    damage(folder)
    with pytest.raises(UserError, match=r"photos/x2/1\.0\.0 is damaged.*overwrite=True"):
        list(open_pairs("photos", scale=2, split="train", data_dir=data_dir))
    prepare("photos", scale=2, data_dir=data_dir, source=photos, overwrite=True)
    pairs = open_pairs("photos", scale=2, split="train", data_dir=data_dir)
    _assert_same(pairs, find("photos", photos, 2, 0)["train"], 2)
