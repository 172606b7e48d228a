"""Local paths, free space, atomic file replacement and locks."""

import errno
import os
import pathlib
import threading
import time

import pytest

from a2f_jax.errors import StorageError, UserError
from a2f_jax.files import (
    check_file_writable,
    check_regular,
    check_writable,
    format_bytes,
    local_path,
    locked,
    replacing,
    require_space,
    user_cache_folder,
    walk,
)


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "file"
    with replacing(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"half"
    assert list(path.parent.iterdir()) == [path]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="midway"), replacing(path) as file:
        file.write(b"new")
        raise RuntimeError("midway")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file/below"), replacing(tmp_path / "file" / "below"):
        pass


def test_two_processes_with_the_same_number_do_not_share_a_temporary_file(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 1)  # as in two containers
    with replacing(tmp_path / "file") as one:
        one.write(b"one")
        with replacing(tmp_path / "file") as other:
            other.write(b"other")
        assert (tmp_path / "file").read_bytes() == b"other"
    assert (tmp_path / "file").read_bytes() == b"one"
    assert [*tmp_path.iterdir()] == [tmp_path / "file"]


@pytest.mark.parametrize(("number", "kind"), [(errno.ESTALE, StorageError), (errno.ENOSPC, UserError)])
def test_errors_that_may_pass_are_told_from_others(tmp_path, number, kind):
    with pytest.raises(UserError, match=r"cannot write .*file") as caught, replacing(tmp_path / "file"):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is kind


def test_only_errors_of_the_file_itself_are_reported_as_such(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*file: No space left"), replacing(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")  # as `write` raises it, without a file name
    with pytest.raises(FileNotFoundError, match="other"), replacing(tmp_path / "file"):
        (tmp_path / "other").open()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127 + "x", "あ" * 85])
def test_names_as_long_as_the_file_system_allows_can_be_written(name, tmp_path):
    assert len(name.encode()) == 255
    with replacing(tmp_path / name) as file:
        file.write(b"whole")
    assert (tmp_path / name).read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_name_that_is_too_long_is_found_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="File name too long"), replacing(tmp_path / ("x" * 256)):
        pytest.fail("the file was opened")


def test_long_names_that_differ_at_the_end_are_written_at_the_same_time(tmp_path):
    first, second = (tmp_path / f"{'x' * 200}{i}" for i in range(2))
    with replacing(first) as one, replacing(second) as two:
        one.write(b"1")
        two.write(b"2")
    assert (first.read_bytes(), second.read_bytes()) == (b"1", b"2")


def test_a_folder_that_cannot_be_written_to_is_found_without_leaving_a_trace(tmp_path):
    check_writable(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", "/proc", "/proc/missing/folder"):
        with pytest.raises(UserError, match=f"cannot write to {folder}: "):
            check_writable(folder)
    with pytest.raises(UserError, match=f"below: {tmp_path}/file is not a folder; choose another one"):
        check_writable(tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KB"),
        (3 << 29, "1.5 GB"),
        ((3 << 29) + 1, "1.6 GB"),
        (413 << 20, "413 MB"),
        ((413 << 20) + 1, "414 MB"),
        (5000 << 40, "5000 TB"),
    ],
)
def test_sizes_are_rounded_up_in_powers_of_1024(count, text):
    assert format_bytes(count) == text


def test_a_full_disk_is_an_error_with_both_sizes(tmp_path, set_free_space):
    set_free_space(1 << 30)
    require_space(tmp_path, 1 << 30, "the file", remedy="free some space")
    with pytest.raises(UserError, match=r"has 1 GB of free space, but the file takes 1\.1 GB: free") as error:
        require_space(tmp_path / "new" / "folder", (1 << 30) + 1, "the file", remedy="free some", parameter="disk")
    assert error.value.parameter == "disk"


def test_only_one_thread_holds_the_lock_at_a_time(tmp_path, capsys):
    inside = []

    def enter(i):
        with locked(tmp_path / "lock"):
            inside.append(("in", i))
            time.sleep(0.05)
            inside.append(("out", i))

    threads = [threading.Thread(target=enter, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [what for what, _ in inside] == ["in", "out"] * 3
    assert [i for _, i in inside[::2]] == [i for _, i in inside[1::2]]
    assert "Waiting for another process" in capsys.readouterr().err


def test_a_tilde_expands_to_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert local_path("~/runs") == pathlib.Path("/home/ada/runs")
    assert local_path(pathlib.Path("runs/~backup")) == pathlib.Path("runs/~backup")
    with pytest.raises(UserError, match="~nobody-at-all/x: the user after ~ does not exist"):
        local_path("~nobody-at-all/x")


def test_a_file_that_cannot_be_written_is_told_from_one_that_can(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path, "is a folder: add the name of a file"),
        (tmp_path / "fifo", "is not a regular file: choose another name"),
        (tmp_path / "file/below", "cannot write to"),
    ):
        with pytest.raises(UserError, match=message):
            check_file_writable(path)
    for path in (tmp_path / "file", tmp_path / "new", tmp_path / "missing/new"):
        check_file_writable(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "file"]


@pytest.mark.parametrize("url", ["gs://bucket/run", "s3://bucket", "file:/run"])
def test_a_url_is_refused(url):
    with pytest.raises(UserError, match="not a local path: download it, or mount the bucket"):
        local_path(url)
    with pytest.raises(UserError):
        local_path(pathlib.Path(url))  # which turns // into /


def test_a_named_pipe_or_device_is_refused_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", "/dev/null"):
        with pytest.raises(UserError, match=f"{path} is not a regular file"):
            check_regular(path)
    for path in (tmp_path, __file__, tmp_path / "missing"):
        check_regular(path)


@pytest.mark.parametrize("wait", [True, False])
def test_without_locks_in_the_file_system_the_work_is_done_all_the_same(tmp_path, monkeypatch, wait):
    def flock(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("a2f_jax.files.fcntl.flock", flock)
    with locked(tmp_path / "lock", wait):
        pass


def test_a_walk_follows_links_to_folders_and_enters_every_folder_once(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for file in (inside / "own/a", outside / "deep/b"):
        file.parent.mkdir(parents=True)
        file.touch()
    (inside / "another").symlink_to("own")  # comes first by name, but is a link to a folder inside
    (inside / "linked").symlink_to(outside)
    (outside / "again").symlink_to(outside)
    (outside / "deep/back").symlink_to(inside)
    (inside / "broken").symlink_to("missing")
    files = [(parent / name).relative_to(inside).as_posix() for parent, _, names in walk(inside) for name in names]
    assert sorted(files) == ["broken", "linked/deep/b", "own/a"]


def test_a_walk_does_not_enter_folders_that_are_removed_from_its_list(tmp_path):
    (tmp_path / "outside/deep").mkdir(parents=True)
    (tmp_path / "inside/own").mkdir(parents=True)
    (tmp_path / "inside/linked").symlink_to(tmp_path / "outside")
    parents = []
    for parent, folders, _ in walk(tmp_path / "inside"):
        parents.append(parent)
        folders.clear()
    assert parents == [tmp_path / "inside"]


def test_a_missing_home_folder_is_named(monkeypatch):
    # As in containers that run as a user without an account.
    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in [name for name in os.environ if name == "HOME" or name.startswith("XDG_")]:
        monkeypatch.delenv(name)
    with pytest.raises(UserError, match="this user has no home folder: set HOME to a folder that can be written"):
        user_cache_folder()


def test_what_another_process_creates_meanwhile_stays_if_nothing_may_be_overwritten(tmp_path, monkeypatch):
    def without_links(source, target):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    for links in (True, False):
        if not links:
            monkeypatch.setattr(os, "link", without_links)
        path = tmp_path / f"{links}.txt"
        with replacing(path, overwrite=False) as file:
            file.write(b"first")
        assert path.read_bytes() == b"first"
        with (
            pytest.raises(UserError, match="was created by another process in the meantime"),
            replacing(path, overwrite=False) as file,
        ):
            file.write(b"second")
        assert path.read_bytes() == b"first"
    assert len(list(tmp_path.iterdir())) == 2
