"""Object storage, on an emulator: what is found there, what goes wrong, and who may write."""

import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid

import numpy as np
import pytest

from a2f_jax import buckets
from a2f_jax.buckets import Claim, bucket_path
from a2f_jax.cli.main import main
from a2f_jax.data import open_pairs
from a2f_jax.errors import UserError
from a2f_jax.files import as_path
from a2f_jax.images import read_rgb, write_rgb
from a2f_jax.staging import local_copy


def put(url, content=b"x"):
    bucket_path(url).write_bytes(content)


@pytest.mark.parametrize("name", ["photo.png", "deep/in/folders.png", "é #1 [2]?*%41.png"])
def test_an_object_is_uploaded_and_downloaded_under_any_name(name, bucket, tmp_path):
    (tmp_path / "file").write_bytes(bytes(range(256)))
    path = bucket_path(f"{bucket}/folder") / name
    buckets.upload(tmp_path / "file", path)
    buckets.download(path, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == bytes(range(256))
    assert buckets.size(path) == 256
    assert list(buckets.list_files(bucket_path(bucket))) == [f"folder/{name}"]


def test_a_listing_changes_when_an_object_is_replaced(bucket):
    listings = []
    for content in (b"one", b"two"):
        put(f"{bucket}/a/b", content)
        listings.append(buckets.list_files(bucket_path(f"{bucket}/a")))
    assert listings[0] != listings[1]
    assert [file.size for listing in listings for file in listing.values()] == [3, 3]
    assert abs(listings[0]["b"].modified - time.time()) < 100
    assert buckets.list_files(bucket_path(f"{bucket}/nothing")) == {}


def test_names_that_would_leave_the_folder_are_refused(bucket, monkeypatch):
    name = f"{bucket.removeprefix('gs://')}/a/../../b"  # as an object can be called, though not with this client
    monkeypatch.setattr(buckets._filesystem("gs"), "find", lambda *_, **__: {name: {"size": 1}})
    with pytest.raises(UserError, match=r"not that of a file: rename 'a/\.\./\.\./b'"):
        buckets.list_files(bucket_path(bucket))


def test_a_pattern_matches_as_in_a_shell(bucket):
    for name in ("a.png", "b.png", "c.jpg", "deep/d.png"):
        put(f"{bucket}/{name}")
    assert list(map(str, buckets.matching(bucket_path(f"{bucket}/*.png")))) == [f"{bucket}/a.png", f"{bucket}/b.png"]
    assert buckets.matching(bucket_path(f"{bucket}/*.gif")) == []


def test_a_folder_whose_name_is_like_a_pattern_is_moved_without_its_neighbors(bucket):
    put(f"{bucket}/s*/a", b"1")
    put(f"{bucket}/s1/a", b"2")
    buckets.move_folder(bucket_path(f"{bucket}/s*"), bucket_path(f"{bucket}/new"))
    assert list(buckets.list_files(bucket_path(bucket))) == ["new/a", "s1/a"]


def test_a_folder_is_moved(bucket):
    put(f"{bucket}/old/a", b"1")
    put(f"{bucket}/old/deep/b", b"2")
    buckets.move_folder(bucket_path(f"{bucket}/old"), bucket_path(f"{bucket}/new/place"))
    assert list(buckets.list_files(bucket_path(bucket))) == ["new/place/a", "new/place/deep/b"]
    assert bucket_path(f"{bucket}/new/place/deep/b").read_bytes() == b"2"


def test_a_bucket_is_checked_for_writing_without_leaving_a_trace(bucket):
    buckets.check_writable(bucket_path(bucket))
    assert buckets.list_files(bucket_path(bucket)) == {}


def test_a_bucket_in_which_nothing_can_be_deleted_can_be_written(bucket, monkeypatch):
    async def refuse(*_, **__):
        raise PermissionError("Forbidden")

    fs = buckets._filesystem("gs")
    monkeypatch.setattr(fs, "_rm_file", refuse)
    buckets.check_writable(bucket_path(f"{bucket}/results"))
    assert list(buckets.list_files(bucket_path(bucket))) == ["results/.a2f-writable"]
    monkeypatch.setattr(fs, "_pipe_file", refuse)  # nor replaced
    buckets._check_bucket_writable.cache_clear()
    buckets.check_writable(bucket_path(f"{bucket}/results"))
    with pytest.raises(UserError, match=r"cannot write to .*/others: no permission"):
        buckets.check_writable(bucket_path(f"{bucket}/others"))


def test_a_path_is_recognized_as_a_whole_bucket(storage, tmp_path):
    assert buckets.is_whole_bucket(bucket_path("gs://bucket"))
    assert buckets.is_whole_bucket(bucket_path("gs://bucket/"))
    assert not buckets.is_whole_bucket(bucket_path("gs://bucket/a"))
    assert not buckets.is_whole_bucket(tmp_path)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError("Forbidden: caller"), "cannot read {}: no permission (Forbidden: caller)"),
        (OSError("Service Unavailable, 503"), "cannot read {}: Service Unavailable, 503"),
        (ValueError("Bad Request"), "cannot read {}: Bad Request"),
    ],
)
@pytest.mark.parametrize("command", [["convert", "{}", "out.safetensors"], ["upscale", "{}", "-o", "out.png"]])
def test_a_failure_to_look_for_a_file_is_one_line(bucket, command, error, expected, monkeypatch, capsys):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(buckets._filesystem("gs"), "isdir", fail)
    monkeypatch.setattr(buckets._filesystem("gs"), "exists", fail)
    url = f"{bucket}/a.png"
    line = error_of([word.format(url) for word in command], capsys)
    assert line.startswith(expected.format(url))


def test_a_failure_of_storage_inside_of_a_library_is_one_line(bucket, monkeypatch, capsys):
    buckets._filesystem("gs")  # sets gcsfs up, which reads its settings when it is imported
    from gcsfs.retry import HttpError

    def fail(*_, **__):
        raise HttpError({"code": 503, "message": "Service Unavailable"})

    monkeypatch.setattr("a2f_jax.cli.convert.run", fail)
    line = error_of(["convert", f"{bucket}/w.safetensors", "out.safetensors"], capsys)
    assert line == "storage failed: Service Unavailable, 503"


def error_of(arguments, capsys):
    """Runs a command that must fail, and returns its only line of output."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return line.removeprefix("a2f: error: ")


COMMANDS = [
    ["convert", "{}/w.safetensors", "out.safetensors"],
    ["upscale", "{}/photo.png", "-o", "out.png"],
    ["upscale", "README.md", "-o", "{}/photo.png"],
    ["train", "--config", "configs/sample.py", "--workdir", "{}/run"],
    ["data", "prepare", "sample", "--data-dir", "{}/data"],
    ["evaluate", "--bicubic", "4", "--datasets", "set5", "--output", "{}/results"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_a_missing_bucket_is_one_line(command, storage, capsys):
    line = error_of([word.format("gs://no-such-bucket") for word in command], capsys)
    assert line == "the bucket gs://no-such-bucket does not exist: create it, or correct its name"


@pytest.mark.parametrize(("scheme", "library"), [("gs", "gcsfs"), ("s3", "s3fs")])
def test_a_missing_package_is_one_line_with_the_command_that_installs_it(scheme, library, monkeypatch, capsys):
    found = buckets.importlib.util.find_spec
    monkeypatch.setattr(buckets.importlib.util, "find_spec", lambda name: None if name == library else found(name))
    line = error_of(["convert", f"{scheme}://bucket/w.safetensors", "out.safetensors"], capsys)
    extra = {"gs": "gcs", "s3": "s3"}[scheme]
    assert line == f"{scheme}://bucket/w.safetensors requires an optional package: pip install 'a2f_jax[{extra}]'"


def test_a_storage_that_does_not_answer_is_one_line(storage, monkeypatch, capsys):
    with socket.socket() as closed:
        closed.bind(("localhost", 0))
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://localhost:{closed.getsockname()[1]}")
        monkeypatch.setattr(buckets, "_PATIENCE", 0.5)
        line = error_of(["convert", f"gs://{uuid.uuid4().hex}/w.safetensors", "out.safetensors"], capsys)
    assert "no answer within 0 s; check the network" in line


class _Denying(http.server.BaseHTTPRequestHandler):
    """Refuses what the real service refuses to accounts without permission; only listing may be allowed."""

    listing = False

    def _answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        allowed = self.listing and self.command == "GET"
        message = "ada@example.org does not have storage.objects access to the Google Cloud Storage bucket."
        error = {"error": {"code": 403, "message": message}}
        content = json.dumps({"kind": "storage#objects"} if allowed else error).encode()
        with contextlib.suppress(ConnectionError):  # the client has given up on this request
            self.send_response(200 if allowed else 403)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    do_GET = do_POST = do_DELETE = _answer

    def log_message(self, *_):
        pass


@pytest.fixture
def denied(storage, monkeypatch):
    server = http.server.ThreadingHTTPServer(("localhost", 0), _Denying)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://localhost:{server.server_port}")
    yield f"gs://{uuid.uuid4().hex}"
    server.shutdown()
    server.server_close()


def test_a_missing_permission_to_read_is_one_line(denied, capsys):
    line = error_of(["convert", f"{denied}/w.safetensors", "out.safetensors"], capsys)
    assert line.startswith(f"cannot list {denied}: no permission (Forbidden: ")
    assert "ada@example.org does not have storage.objects access" in line
    assert "gcloud auth application-default login" in line


def test_a_missing_permission_to_write_is_found_before_the_work(denied, monkeypatch, capsys):
    monkeypatch.setattr(_Denying, "listing", True)
    line = error_of(["evaluate", "--bicubic", "4", "--datasets", "set5", "--output", f"{denied}/results"], capsys)
    assert line.startswith(f"cannot write to {denied}/results: no permission (Forbidden: ")
    line = error_of(["convert", "missing", f"{denied}/new.safetensors"], capsys)
    assert line.startswith(f"cannot write to {denied}: no permission (Forbidden: ")


@pytest.mark.parametrize("url", ["http://host/photo.png", "file:/run", "gs://"])
def test_other_urls_are_refused(url):
    with pytest.raises(UserError, match=r"neither a local path nor in a bucket|does not name a bucket"):
        bucket_path(url)


def test_no_library_for_buckets_is_imported_without_a_url():
    program = (
        "import sys\nfrom a2f_jax.cli.main import main\nmain(['info', 'a2f-sd-x4'])\n"
        "sys.exit(any(name in sys.modules for name in ('fsspec', 'gcsfs', 's3fs', 'aiohttp', 'google.auth')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, stdout=subprocess.DEVNULL).returncode == 0


def test_data_weights_and_images_but_not_checkpoints_can_be_on_s3(tmp_path, monkeypatch, capsys):
    pytest.importorskip("s3fs", reason="needs the extra [s3]")
    server = pytest.importorskip("moto.server", reason="needs moto[server]").ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/bucket", method="PUT")).close()
    try:
        assert main(["data", "prepare", "sample", "--data-dir", "s3://bucket/data"]) == 0
        assert len(open_pairs("sample", scale=4, data_dir="s3://bucket/data")) == 6
        assert main(["convert", "a2f-sd-x4", "s3://bucket/weights.safetensors"]) == 0
        write_rgb("s3://bucket/in/photo.png", np.zeros((8, 9, 3), np.uint8))
        command = [
            "upscale",
            "s3://bucket/in/",
            "-o",
            "s3://bucket/out/",
            "--weights",
            "s3://bucket/weights.safetensors",
        ]
        assert main(command) == 0
        with local_copy(as_path("s3://bucket/out/photo.png")) as file:
            assert read_rgb(file).shape == (32, 36, 3)
        capsys.readouterr()
        line = error_of(["train", "--config", "configs/sample.py", "--workdir", "s3://bucket/run"], capsys)
        assert line == "s3://bucket/run cannot hold checkpoints: use a folder in gs:// or on a disk"
    finally:
        server.stop()


@pytest.fixture
def lock(bucket):
    return bucket_path(f"{bucket}/run/lock")


def test_a_claim_ends_with_its_block(lock):
    for _ in range(2):
        with Claim(lock) as claim:
            claim.check()
            assert lock.exists()
        assert not lock.exists()


def test_a_folder_whose_owner_is_alive_is_refused(lock, monkeypatch):
    monkeypatch.setattr(buckets, "_REFRESH", 0.1)
    with Claim(lock) as first:
        with pytest.raises(BlockingIOError), Claim(lock):
            pytest.fail("two processes own the folder")
        first.check()


def test_of_two_that_find_no_claim_only_one_gets_it(lock, monkeypatch):
    with Claim(lock):
        monkeypatch.setattr(Claim, "_read", lambda self: None)  # the other looked before the first one wrote
        with pytest.raises(BlockingIOError), Claim(lock):
            pytest.fail("two processes own the folder")
        monkeypatch.undo()


def test_a_claim_of_a_killed_process_of_this_machine_is_taken_over_at_once(lock, monkeypatch):
    program = (
        "import os, signal\nfrom a2f_jax.buckets import Claim, bucket_path\n"
        f"with Claim(bucket_path('{lock}')): os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", program], check=False, env=os.environ)
    assert killed.returncode == -signal.SIGKILL
    assert lock.exists()
    monkeypatch.setattr(buckets, "_EXPIRY", 1e6)  # it would wait as long
    with Claim(lock) as claim:
        claim.check()


def claim_of_another_machine(lock, refreshed):
    lock.write_text(json.dumps({"host": "other", "machine": "other", "process": 1, "refreshed": refreshed}))


@pytest.mark.parametrize("ahead", [100, -100])
def test_a_claim_of_another_machine_whose_clock_may_be_wrong_is_watched_before_it_is_taken_over(
    lock, monkeypatch, capsys, ahead
):
    monkeypatch.setattr(buckets, "_EXPIRY", 0.1)
    claim_of_another_machine(lock, time.time() + ahead)
    with Claim(lock) as claim:
        claim.check()
    assert "whether process 1 on other still uses" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[]", '{"process": "x"}'])
def test_a_damaged_claim_is_taken_over(lock, content):
    lock.write_text(content)
    with Claim(lock) as claim:
        claim.check()


def test_an_owner_whose_claim_was_taken_over_stops_and_leaves_it(lock):
    with Claim(lock) as claim:
        claim_of_another_machine(lock, time.time())
        with pytest.raises(UserError, match=f"another run has taken over {lock.parent}: this one stops"):
            claim.check()
    assert json.loads(lock.read_text())["host"] == "other"


def test_a_claim_is_refreshed(lock, monkeypatch):
    monkeypatch.setattr(buckets, "_REFRESH", 0.05)
    with Claim(lock):
        seen = lock.read_text()
        until = time.monotonic() + 30
        while lock.read_text() == seen:
            assert time.monotonic() < until
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("url", "remedy"), [("gs://a/b", "gcloud auth application-default login"), ("s3://a/b", "aws sso login")]
)
def test_a_missing_permission_names_the_way_to_log_in_to_this_storage(url, remedy):
    with pytest.raises(UserError, match=rf"cannot read {url}: no permission \(denied\); .*{remedy}"):
        buckets._report(f"read {url}", PermissionError("denied"))
