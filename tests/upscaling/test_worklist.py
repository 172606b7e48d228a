"""Which images are upscaled and where their results go, found out before the work begins."""

import errno
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from a2f_jax.errors import UserError
from a2f_jax.files import as_path
from a2f_jax.upscaling.worklist import UNREADABLE, Job, list_jobs, summarize


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.zeros((9, 12, 3), np.uint8)).save(path)
    return path


def test_an_output_folder_inside_the_input_folder_is_not_searched_for_images(photo, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photo.png").write_bytes(photo.read_bytes())
    assert [job.image for job in list_jobs([tmp_path], tmp_path / "out").jobs] == [photo]


def test_images_of_a_format_that_cannot_be_written_become_png(tmp_path):
    (tmp_path / "old.gif").touch()
    (job,) = list_jobs([tmp_path], tmp_path / "out").jobs
    assert job.output == tmp_path / "out" / "old.png"


def test_images_in_linked_folders_are_found(photo, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "linked").symlink_to(photo.parent)  # which contains the folder
    assert [job.image for job in list_jobs([folder], tmp_path / "out").jobs] == [folder / "linked" / photo.name]


def test_images_in_linked_folders_are_found_even_if_hidden_names_lead_there_too(photo, tmp_path):
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    for place in (folder / ".hidden/photos", outside):
        place.mkdir(parents=True)
        (place / "1.png").write_bytes(photo.read_bytes())
    (folder / ".trash").symlink_to(outside)
    (folder / "linked").symlink_to(outside)
    (folder / "photos").symlink_to(".hidden/photos")
    work = list_jobs([folder], tmp_path / "out")
    assert [job.image for job in work.jobs] == [folder / "linked/1.png", folder / "photos/1.png"]
    assert not work.ignored


def test_results_that_a_link_leads_to_are_not_searched_for_images(photo, tmp_path):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/a.png").write_bytes(photo.read_bytes())
    (folder / "previous").symlink_to(tmp_path / "out/sub")
    (tmp_path / "out/sub").mkdir(parents=True)
    (tmp_path / "out/sub/a.png").write_bytes(photo.read_bytes())
    assert [job.image for job in list_jobs([folder], tmp_path / "out").jobs] == [folder / "sub/a.png"]


def test_images_inside_the_output_folder_can_be_upscaled(photo, tmp_path):
    (tmp_path / "out/in").mkdir(parents=True)
    (tmp_path / "out/in/a.png").write_bytes(photo.read_bytes())
    (job,) = list_jobs([tmp_path / "out/in"], tmp_path / "out").jobs
    assert (job.image, job.output) == (tmp_path / "out/in/a.png", tmp_path / "out/a.png")


def test_what_is_left_out_of_a_folder_is_listed_with_the_reason(photo, tmp_path):
    names = ["a.JFIF", "b.exr", "c.jp2", "._photo.png", ".hidden/t.jpg", "sub/.d.webp", "notes.txt", ".git/config"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "broken.png").symlink_to("missing.png")
    (tmp_path / "BMW.txt").write_text("BMW and other cars, which do not begin like a bitmap of Windows")
    for name in ("photo", "photo.png.1", "photo.png~", ".photo.png.swp"):  # as browsers and editors name them
        (tmp_path / name).write_bytes(photo.read_bytes())
    work = list_jobs([tmp_path], tmp_path / "out")
    assert [job.image.name for job in work.jobs] == ["a.JFIF", "photo.png"]
    reasons = {str(path.relative_to(tmp_path)): reason for path, reason in work.ignored}
    assert reasons == {
        "b.exr": "in an unsupported format",
        "c.jp2": "in an unsupported format",
        "._photo.png": "hidden",
        ".hidden/t.jpg": "hidden",
        "sub/.d.webp": "hidden",
        "broken.png": "unreadable",
        "photo": "without an image suffix",
        "photo.png.1": "without an image suffix",
        "photo.png~": "without an image suffix",
    }


def test_images_in_a_folder_that_can_be_listed_but_not_entered_are_unreadable(photo, tmp_path, monkeypatch):
    locked = tmp_path / "locked"
    locked.mkdir()
    (locked / "a.png").write_bytes(photo.read_bytes())
    real = os.stat

    def refused(path, *args, **kwargs):  # root may enter any folder, so permissions cannot be tested as root
        if not isinstance(path, int) and pathlib.Path(os.fsdecode(path)).parent == locked:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", refused)
    work = list_jobs([tmp_path], tmp_path / "out")
    assert [job.image for job in work.jobs] == [tmp_path / "photo.png"]
    assert work.ignored == [(locked / "a.png", UNREADABLE)]


def test_a_hidden_file_that_is_named_is_upscaled(tmp_path):
    assert [job.image.name for job in list_jobs([tmp_path / ".a.png"], tmp_path / "out.png").jobs] == [".a.png"]


def test_the_error_for_a_folder_without_images_counts_what_was_left_out(tmp_path):
    for name in ("a.exr", "b.exr", "._c.png"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"\(3 were left out: 1 hidden \(.*_c\.png\), 2 in an unsupported format"):
        list_jobs([tmp_path], tmp_path / "out")


def test_a_long_list_is_shortened():
    ignored = [(pathlib.Path(f"{i}.exr"), "in an unsupported format") for i in range(12)]
    assert summarize(ignored).endswith("8.exr, 9.exr and 2 more)")


def test_two_results_that_reach_the_same_file_by_links_are_refused(photo, tmp_path):
    for name in ("x", "y"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "a.png").write_bytes(photo.read_bytes())
    (tmp_path / "out/x").mkdir(parents=True)
    (tmp_path / "out/y").symlink_to("x")
    with pytest.raises(UserError, match=r"in/x/a\.png and .*in/y/a\.png have the same output file"):
        list_jobs([tmp_path / "in"], tmp_path / "out")


def test_an_output_that_is_no_regular_file_is_refused(photo, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match=r"pipe\.png is not a regular file: choose another name"):
        list_jobs([photo], tmp_path / "pipe.png")


def test_an_image_that_is_named_twice_is_upscaled_once(photo, tmp_path):
    assert [job.output.name for job in list_jobs([tmp_path, photo], tmp_path / "out").jobs] == ["photo.png"]


def test_an_output_that_ends_in_a_slash_is_a_folder(photo, tmp_path):
    for output in (f"{tmp_path}/out.v2/", f"{tmp_path}/out.png/"):
        assert [str(job.output) for job in list_jobs([photo], output).jobs] == [f"{output}photo.png"]


def test_an_output_with_an_unknown_suffix_is_refused(photo, tmp_path):
    with pytest.raises(
        UserError, match=r"out\.v2: its suffix must be one of \.avif, .* must end in / if it is a folder"
    ):
        list_jobs([photo], tmp_path / "out.v2")
    assert list_jobs([photo], tmp_path / "out.v2", "PNG").jobs == [Job(photo, tmp_path / "out.v2")]


def test_the_name_of_an_image_file_is_refused_as_output_of_several_images(photo, tmp_path):
    for images, several in (([photo, tmp_path / "b.png"], "2 files or folders"), ([tmp_path], "a folder")):
        with pytest.raises(UserError, match=rf"two\.png is the name of one file, but the input is {several}: pass a"):
            list_jobs(images, tmp_path / "two.png")
    (tmp_path / "two.png").mkdir()
    (job,) = list_jobs([photo, photo], tmp_path / "two.png").jobs
    assert job.output == tmp_path / "two.png" / "photo.png"


def test_a_tilde_is_the_home_folder_unless_it_begins_the_name_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.chdir(tmp_path)
    pathlib.Path("~a.png").touch()
    (job,) = list_jobs(["~a.png"], "-").jobs
    assert job.image == pathlib.Path("~a.png")
    monkeypatch.setattr("a2f_jax.upscaling.worklist.check_writable", lambda folder: None)
    (job,) = list_jobs(["~/b.png"], "~/out/").jobs
    assert (job.image, job.output) == (pathlib.Path("/home/ada/b.png"), pathlib.Path("/home/ada/out/b.png"))


@pytest.mark.parametrize("output", ["/proc/x.png", "file/x.png", "file/folder/"])
def test_an_output_that_cannot_be_written_is_found_before_the_work(photo, tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("file").touch()
    with pytest.raises(UserError, match=f"cannot write to {pathlib.Path(output + '_').parent}"):
        list_jobs([photo], output)


def test_folders_and_patterns_in_a_bucket_are_searched(bucket, tmp_path):
    for name in ("a.png", "deep/b.jpg", ".hidden/c.png", "notes.txt", "d.exr", "out/old.png"):
        (as_path(f"{bucket}/in") / name).write_bytes(b"")
    work = list_jobs([f"{bucket}/in/"], f"{bucket}/in/out/")
    assert [(str(job.image), str(job.output)) for job in work.jobs] == [
        (f"{bucket}/in/a.png", f"{bucket}/in/out/a.png"),
        (f"{bucket}/in/deep/b.jpg", f"{bucket}/in/out/deep/b.jpg"),
    ]
    assert sorted(reason for _, reason in work.ignored) == ["hidden", "in an unsupported format"]
    assert not work.single
    (job,) = list_jobs([f"{bucket}/in/*.png"], tmp_path / "out").jobs
    assert (str(job.image), job.output) == (f"{bucket}/in/a.png", tmp_path / "out" / "a.png")
    with pytest.raises(UserError, match=r"nothing in the bucket matches .*\*\.gif"):
        list_jobs([f"{bucket}/in/*.gif"], tmp_path / "out")


def test_one_object_is_one_image_and_cannot_replace_itself(bucket):
    image = as_path(f"{bucket}/a [1].png")
    image.write_bytes(b"")
    work = list_jobs([str(image)], f"{bucket}/b.png")
    assert work.single
    assert [(str(job.image), str(job.output)) for job in work.jobs] == [(str(image), f"{bucket}/b.png")]
    with pytest.raises(UserError, match="is one of the input images"):
        list_jobs([str(image)], str(image))


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_an_image_is_not_replaced_under_another_of_its_names(photo, tmp_path, link):
    # Such as on a file system that is mounted twice, or that ignores the case of names.
    link(photo, tmp_path / "PHOTO.png")
    with pytest.raises(UserError, match=r"PHOTO\.png is one of the input images"):
        list_jobs([str(photo)], str(tmp_path / "PHOTO.png"))
