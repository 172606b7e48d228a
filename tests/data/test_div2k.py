import functools
import hashlib
import http.server
import os
import pathlib
import threading
from typing import ClassVar

import numpy as np
import pytest

from a2f_jax.data import div2k as module
from a2f_jax.data import matlab_bicubic, open_pairs, prepare
from a2f_jax.data.discovery import find
from a2f_jax.errors import UserError


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("scale", [2, 4])
def test_div2k_is_recognized_as_published(div2k, picture, packed, scale):
    splits = find("div2k", div2k(packed), scale)
    assert {split: [source.name for source in sources] for split, sources in splits.items()} == {
        "train": ["0001", "0002"],
        "validation": ["0801"],
    }
    for source in splits["train"] + splits["validation"]:
        pair = source.read(scale)
        np.testing.assert_array_equal(pair.hr, picture(int(source.name)))
        np.testing.assert_array_equal(pair.lr, 255 - matlab_bicubic(pair.hr, 1 / scale))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "DIV2K_valid_HR.zip").unlink(), r"neither DIV2K_valid_HR/ nor DIV2K_valid_HR\.zip"),
        (lambda d: (d / "DIV2K_train_LR_bicubic_X4.zip").unlink(), "neither DIV2K_train_LR_bicubic_X4/ nor"),
        (lambda d: (d / "DIV2K_train_HR.zip").write_bytes(b"PK"), r"DIV2K_train_HR\.zip is not a complete zip archive"),
        (lambda d: os.truncate(d / "DIV2K_train_HR.zip", 1000), r"DIV2K_train_HR\.zip is not a complete zip archive"),
    ],
)
def test_incomplete_div2k_is_refused(div2k, damage, message):
    folder = div2k(packed=True)
    damage(folder)
    with pytest.raises(UserError, match=message):
        find("div2k", folder, 4)


def test_div2k_with_a_missing_image_is_refused(div2k):
    folder = div2k(packed=False)
    (folder / "DIV2K_train_LR_bicubic/X4/0002x4.png").unlink()
    with pytest.raises(UserError, match=r"DIV2K_train_LR_bicubic has no image for 0002 in .*DIV2K_train_HR"):
        find("div2k", folder, 4)
    (folder / "DIV2K_train_HR/0001.png").unlink()
    (folder / "DIV2K_train_HR/0002.png").unlink()
    with pytest.raises(UserError, match=r"DIV2K_train_HR has no image for 0001 in .*DIV2K_train_LR_bicubic"):
        find("div2k", folder, 4)


def test_a_damaged_image_in_an_archive_is_named(div2k):
    archive = div2k(packed=True) / "DIV2K_train_HR.zip"
    content = bytearray(archive.read_bytes())
    content[content.index(b"IDAT") + 40] ^= 255
    archive.write_bytes(content)
    with pytest.raises(UserError, match=r"DIV2K_train_HR\.zip/DIV2K_train_HR/0001\.png"):
        find("div2k", archive.parent, 4)["train"][0].read(4)


class _Server(http.server.SimpleHTTPRequestHandler):
    """Serves files, honors range requests, and drops the connection once per entry in `failures`."""

    failures: ClassVar[list[str]] = []
    requests: ClassVar[list[tuple[str, int]]] = []
    replies: ClassVar[list[tuple[str, bytes]]] = []
    """Content types and contents that are sent, last first, instead of the files."""

    def do_GET(self):
        content = pathlib.Path(self.translate_path(self.path)).read_bytes()
        if self.replies:
            kind, content = self.replies.pop()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return
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
        monkeypatch.setattr(module, "_URL", f"http://127.0.0.1:{server.server_port}/")
        published = {
            file.name: module._Archive(file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())
            for file in archives.iterdir()
        }
        monkeypatch.setattr(module, "_ARCHIVES", published)
        yield archives
        server.shutdown()


def test_div2k_is_downloaded(div2k_server, data_dir, assert_same):
    prepare("div2k", scale=2, data_dir=data_dir)
    validation = open_pairs("div2k", scale=2, data_dir=data_dir)
    assert_same(validation, find("div2k", div2k_server, 2)["validation"], 2)
    assert len(_Server.requests) == 4


def test_an_interrupted_download_is_resumed(div2k_server, data_dir, assert_same):
    _Server.failures.append("drop the connection")
    with pytest.raises(UserError, match="the connection was lost"):
        prepare("div2k", scale=4, data_dir=data_dir)
    prepare("div2k", scale=4, data_dir=data_dir)
    half = (div2k_server / "DIV2K_train_HR.zip").stat().st_size // 2
    assert _Server.requests[:2] == [("DIV2K_train_HR.zip", 0), ("DIV2K_train_HR.zip", half)]
    train = open_pairs("div2k", scale=4, split="train", data_dir=data_dir)
    assert_same(train, find("div2k", div2k_server, 4)["train"], 4)


def test_a_failed_download_names_the_files_to_download(data_dir, monkeypatch):
    monkeypatch.setattr(module, "_URL", "http://127.0.0.1:9/")
    with pytest.raises(
        UserError, match=r"Connection refused.*download DIV2K_train_HR\.zip, .*_X3\.zip yourself and pass their folder"
    ):
        prepare("div2k", scale=3, data_dir=data_dir)


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("text/html; charset=utf-8", lambda archive: b"<html>Sign in</html>", "a web page instead of the archive"),
        ("application/zip", lambda archive: archive[:-1], "the server offers [0-9]+ bytes instead of [0-9]+"),
        ("application/zip", lambda archive: archive[:-1] + b"?", "DIV2K_train_HR.zip was damaged in transfer"),
    ],
)
def test_a_download_that_is_not_the_archive_is_not_kept(div2k_server, data_dir, assert_same, kind, content, message):
    archive = (div2k_server / "DIV2K_train_HR.zip").read_bytes()
    _Server.replies.append((kind, content(archive)))
    with pytest.raises(UserError, match=message):
        prepare("div2k", scale=4, data_dir=data_dir)
    assert {file.name for file in (data_dir / "downloads/div2k").iterdir()} == {"download.lock"}
    prepare("div2k", scale=4, data_dir=data_dir)
    train = open_pairs("div2k", scale=4, split="train", data_dir=data_dir)
    assert_same(train, find("div2k", div2k_server, 4)["train"], 4)


def test_a_file_that_is_not_the_archive_is_downloaded_again(div2k_server, data_dir):
    downloads = data_dir / "downloads/div2k"
    downloads.mkdir(parents=True)
    (downloads / "DIV2K_valid_HR.zip").write_bytes(b"<html>Sign in</html>")
    prepare("div2k", scale=4, data_dir=data_dir)
    assert ("DIV2K_valid_HR.zip", 0) in _Server.requests
    assert (downloads / "DIV2K_valid_HR.zip").read_bytes() == (div2k_server / "DIV2K_valid_HR.zip").read_bytes()


def test_a_disk_too_small_for_the_archives_is_found_before_the_download(data_dir, set_free_space):
    set_free_space(10**9)
    with pytest.raises(UserError, match=r"has .* of free space, but downloading DIV2K takes 4 GB"):
        prepare("div2k", scale=4, data_dir=data_dir)
