"""Local copies of what is in a bucket."""

import pytest

from a2f_jax import buckets, staging
from a2f_jax.errors import UserError
from a2f_jax.files import as_path, replacing
from a2f_jax.staging import cached_folder, local_copy, mirrored, upload_folder


def names(folder):
    return list(buckets.list_files(as_path(folder)))


def test_local_files_are_used_where_they_are(tmp_path):
    with local_copy(tmp_path / "file") as copy, mirrored(tmp_path) as folder:
        assert (copy, folder) == (tmp_path / "file", tmp_path)
    assert cached_folder(tmp_path) == tmp_path


def test_a_file_and_a_folder_are_copied_for_the_duration_of_a_block(bucket):
    for name in ("file.txt", "deep/other.txt"):
        (as_path(f"{bucket}/folder") / name).write_text(name)
    with local_copy(as_path(f"{bucket}/folder/file.txt")) as copy:
        assert copy.name == "file.txt"
        assert copy.read_text() == "file.txt"
    assert not copy.exists()
    with local_copy(as_path(f"{bucket}/folder")) as copy:
        assert (copy / "deep/other.txt").read_text() == "deep/other.txt"
    assert not copy.exists()


def test_errors_name_the_object_and_not_its_copy(bucket):
    path = as_path(f"{bucket}/file.txt")
    path.write_text("")
    with pytest.raises(UserError) as error, local_copy(path) as copy:
        raise UserError(f"{copy} is damaged", parameter="source")
    assert (str(error.value), error.value.parameter) == (f"{path} is damaged", "source")
    missing = as_path(f"{bucket}/missing")
    with pytest.raises(UserError, match=f"cannot read {missing}: it does not exist"), local_copy(missing):
        pytest.fail("there is nothing to copy")


@pytest.mark.parametrize("variable", ["TMPDIR", "XDG_CACHE_HOME"])
def test_a_copy_that_does_not_fit_names_the_variable_that_moves_it(bucket, variable, set_free_space):
    path = as_path(f"{bucket}/large")
    (path / "a").write_text("content")
    set_free_space(0)
    message = (
        rf"^/\S+ has 0 bytes of free space, but a copy of {path} takes 7 bytes: free some space, or set {variable} to"
    )
    with pytest.raises(UserError, match=message):
        if variable == "TMPDIR":
            with local_copy(path):
                pass
        else:
            cached_folder(path)


def test_a_folder_is_copied_once_and_again_when_it_has_changed(bucket, monkeypatch):
    path = as_path(f"{bucket}/data")
    for name in ("a", "deep/b", "left out"):
        (path / name).write_text("old")

    def copied():
        return cached_folder(path, "some", lambda name: name != "left out")

    first = copied()
    assert sorted(file.relative_to(first).as_posix() for file in first.rglob("*")) == ["a", "deep", "deep/b"]
    (first / "a").write_text("ours")
    assert (copied() / "a").read_text() == "ours"
    (path / "left out").write_text("new")
    assert copied() == first
    (path / "deep/b").write_text("new")
    second = copied()
    assert second != first
    assert (second / "deep/b").read_text() == "new"
    assert not first.exists()


def test_a_copy_that_was_interrupted_is_made_again(bucket, monkeypatch):
    path = as_path(f"{bucket}/data")
    for name in ("a", "b"):
        (path / name).write_text(name)
    download = buckets.download

    def fail(source, target):
        if source.name == "b":
            raise KeyboardInterrupt
        download(source, target)

    monkeypatch.setattr(buckets, "download", fail)
    with pytest.raises(KeyboardInterrupt):
        cached_folder(path)
    monkeypatch.undo()
    assert sorted(file.name for file in cached_folder(path).iterdir()) == ["a", "b"]


def test_a_folder_is_complete_only_when_everything_is_uploaded(bucket, tmp_path, monkeypatch):
    target = as_path(f"{bucket}/set")
    for name, content in (("z", "new"), ("complete", "new")):
        (tmp_path / name).write_text(content)
    for name in ("complete", "stale"):
        (target / name).write_text("old")
    upload = buckets.upload

    def interrupt(file, path):
        upload(file, path)
        assert names(target) == ["z"]
        raise KeyboardInterrupt

    monkeypatch.setattr(buckets, "upload", interrupt)
    with pytest.raises(KeyboardInterrupt):
        upload_folder(tmp_path, target, last="complete")
    monkeypatch.undo()
    upload_folder(tmp_path, target, last="complete")
    assert names(target) == ["complete", "z"]
    assert (target / "complete").read_text() == "new"


def test_a_mirrored_folder_is_uploaded_at_the_end_and_continued_the_next_time(bucket):
    run = as_path(f"{bucket}/run")
    for i in range(2):
        with mirrored(run, ("log", "absent")) as folder:
            with (folder / "log").open("a") as log:
                log.write(f"{i}\n")
            (folder / "deep").mkdir()
            (folder / f"deep/{i}").touch()
    assert (run / "log").read_text() == "0\n1\n"
    assert names(run) == ["deep/0", "deep/1", "log"]


def test_a_mirrored_folder_is_uploaded_meanwhile_and_after_an_error(bucket, monkeypatch):
    monkeypatch.setattr(staging, "_UPLOAD_INTERVAL", 0.05)
    run = as_path(f"{bucket}/run")
    with pytest.raises(RuntimeError, match="midway"), mirrored(run) as folder:
        (folder / "log").write_text("1")
        while not (run / "log").exists():
            pass
        monkeypatch.setattr(staging, "_UPLOAD_INTERVAL", 1000)
        (folder / "last").write_text("words")
        raise RuntimeError("midway")
    assert names(run) == ["last", "log"]


def test_a_file_in_a_bucket_is_replaced_as_a_whole_or_not_at_all(bucket):
    path = as_path(f"{bucket}/file.png")
    for content in (b"old", b"new"):
        with replacing(path) as file:
            file.write(content)
        assert path.read_bytes() == content
    with pytest.raises(RuntimeError, match="midway"), replacing(path) as file:
        file.write(b"half")
        raise RuntimeError("midway")
    assert path.read_bytes() == b"new"
    assert names(bucket) == ["file.png"]
