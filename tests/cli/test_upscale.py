"""The command `a2f upscale`."""

import io
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import threading
import time
import types

import numpy as np
import pytest
from PIL import Image

import a2f_jax
from a2f_jax import cli
from a2f_jax.files import as_path, replacing
from a2f_jax.staging import local_copy
from a2f_jax.upscaling import batch


def size(path):
    with Image.open(path) as image:
        return image.format, image.size


def test_by_default_the_shipped_weights_write_next_to_the_image(tmp_path, capsys):
    Image.new("RGB", (24, 16), (10, 90, 200)).save(tmp_path / "photo.jpg")
    assert cli.main(["upscale", str(tmp_path / "photo.jpg")]) == 0
    assert size(tmp_path / "photo-x4.jpg") == ("JPEG", (96, 64))
    assert capsys.readouterr().out.strip() == str(tmp_path / "photo-x4.jpg")


def test_results_are_named_after_size_and_format(weights, photo, tmp_path):
    argv = ["upscale", photo, "--weights", weights]
    assert cli.main(argv) == 0
    assert size(tmp_path / "photo-x2.png") == ("PNG", (88, 80))
    assert cli.main([*argv, "--scale", "1.5", "--format", "tiff"]) == 0
    assert size(tmp_path / "photo-x1.5.tif") == ("TIFF", (66, 60))
    assert cli.main([*argv, "--size", "66x999"]) == 0
    assert size(tmp_path / "photo-66x999.png") == ("PNG", (66, 60))


def test_by_default_a_folder_is_upscaled_into_a_sibling_folder(weights, photo, tmp_path):
    folder = tmp_path / "photos" / "2026"
    folder.mkdir(parents=True)
    shutil.copy(photo, folder)
    assert cli.main(["upscale", str(tmp_path / "photos"), "--weights", weights]) == 0
    assert size(tmp_path / "photos-x2" / "2026" / "photo.png") == ("PNG", (88, 80))


@pytest.mark.parametrize(("scale", "weights"), [("2", "a2f-l-x2"), ("2.5", "a2f-l-x3"), ("6", "a2f-l-x4")])
def test_the_shipped_weights_of_the_next_larger_scale_are_used(scale, weights, photo, fails):
    # No weights of this variant are shipped yet, so that the error names those that would be used.
    assert f"no weights at {weights}" in fails("upscale", photo, "--model", "a2f-l", "--scale", scale)


def test_by_default_what_a_pattern_in_a_bucket_finds_is_written_beside_it(weights, photo, bucket, capsys, fails):
    for name in ("one/a.png", "two/a.png", "two/b.png"):
        as_path(f"{bucket}/{name}").parent.mkdir(parents=True, exist_ok=True)
        as_path(f"{bucket}/{name}").write_bytes(pathlib.Path(photo).read_bytes())
    assert cli.main(["upscale", f"{bucket}/one/*.png", "--weights", weights]) == 0
    assert capsys.readouterr().out == f"{bucket}/one/a-x2.png\n"
    assert "choose where to write" in fails("upscale", f"{bucket}/two/*.png", "--weights", weights)
    assert "choose where to write" in fails("upscale", "gs://bucket", "--weights", weights)


def test_options_without_effect_are_refused(weights, photo, fails, tmp_path, monkeypatch):
    argv = ["upscale", photo, "--weights", weights]
    assert "--quality has no effect on PNG" in fails(*argv, "-o", str(tmp_path / "o.png"), "--quality", "30")
    assert cli.main([*argv, "-o", str(tmp_path / "o.webp"), "--quality", "30"]) == 0
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert "standard output is a terminal: redirect it" in fails(*argv, "-o", "-")


def test_images_weights_and_the_report_can_be_in_a_bucket(weights, photo, bucket, capsys, fails):
    for path, file in (("photos/a.png", photo), ("photos/sub/b.png", photo), ("w.safetensors", weights)):
        with replacing(as_path(f"{bucket}/{path}")) as target:
            target.write(pathlib.Path(file).read_bytes())
    as_path(f"{bucket}/photos/bad.png").write_bytes(b"?")
    argv = ["upscale", f"{bucket}/photos", "--weights", f"{bucket}/w.safetensors", "--report", f"{bucket}/report.json"]
    for status in ("done", "skipped"):
        line = fails(*argv, "--resume").splitlines()[-1]
        assert line == f"a2f: error: 1 of 3 images failed, for the reasons above: {bucket}/photos/bad.png"
        entries = json.loads(as_path(f"{bucket}/report.json").read_text())["images"]
        assert {entry["image"]: entry["status"] for entry in entries} == {
            f"{bucket}/photos/a.png": status,
            f"{bucket}/photos/bad.png": "failed",
            f"{bucket}/photos/sub/b.png": status,
        }
        (failed,) = (entry for entry in entries if entry["status"] == "failed")
        assert failed["error"].startswith(f"{bucket}/photos/bad.png is not an image or is damaged")
    with local_copy(as_path(f"{bucket}/photos-x2/sub/b.png")) as file:
        assert size(file) == ("PNG", (88, 80))
    capsys.readouterr()
    one = ["upscale", f"{bucket}/photos/a.png", "--weights", weights]
    assert cli.main(one) == 0
    assert capsys.readouterr().out.strip() == f"{bucket}/photos/a-x2.png"
    assert f"{bucket}/photos/a-x2.png exists: choose another output, or replace it (--overwrite)" in fails(*one)


def test_several_images_need_an_output(weights, photo, fails, tmp_path):
    before = sorted(tmp_path.iterdir())
    assert "-o FOLDER" in fails("upscale", photo, photo, "--weights", weights)
    assert sorted(tmp_path.iterdir()) == before


def test_a_scale_for_which_other_weights_exist_is_refused(weights, photo, tmp_path, fails):
    line = fails("upscale", photo, "-o", str(tmp_path / "o.png"), "--weights", weights, "--scale", "4")
    assert "is for --scale 2, not 4: choose weights for ×4" in line


def test_verbose_prints_how_an_image_is_computed(weights, photo, tmp_path, capsys):
    argv = ["upscale", photo, "-o", str(pathlib.Path(tmp_path, "o.png")), "--weights", weights, "--verbose"]
    assert cli.main(argv) == 0
    err = capsys.readouterr().err
    assert f"a2f: upscaling with {weights} (×2, float32)" in err
    assert f"a2f: {photo} → {tmp_path / 'o.png'}" in err
    assert "44×40 pixels in tiles of 64×64, states in device memory" in err
    assert re.search(r"\d+ programs: \d+ compiled, \d+ read from the cache, in [\d.]+ s", err)


@pytest.mark.parametrize(
    "argv",
    [
        ["--scale", "nan"],
        ["--scale", "0"],
        ["--scale", "inf"],
        ["--tile", "0"],
        ["--size", "100"],
        ["--pixel-limit", "-1"],
        ["--memory", "much"],
        ["--disk", "1 cup"],
    ],
)
def test_invalid_numbers_are_refused(photo, argv, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["upscale", photo, *argv])
    assert stop.value.code == 2
    assert argv[1] in capsys.readouterr().err


def test_a_model_can_be_named_with_its_scale(tmp_path):
    Image.new("RGB", (24, 16), (10, 90, 200)).save(tmp_path / "photo.png")
    assert cli.main(["upscale", str(tmp_path / "photo.png"), "--model", "a2f-sd-x2"]) == 0
    assert size(tmp_path / "photo-x2.png") == ("PNG", (48, 32))


def test_images_that_cannot_be_read_are_left_out_and_fail_the_command(weights, photo, fails, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(photo, folder / "a.png")
    (folder / "b.png").symlink_to("missing.png")
    line = fails("upscale", str(folder), "-o", str(tmp_path / "out"), "--weights", weights)
    assert f"the others are upscaled, but 1 could not be read: {folder / 'b.png'}; check" in line
    assert (tmp_path / "out/a.png").exists()


def test_a_batch_is_summarized_and_reported(weights, photo, fails, tmp_path, capsys):
    folder, out, report = tmp_path / "photos", tmp_path / "out", tmp_path / "report.json"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png", "._a.png"):
        shutil.copy(photo, folder / name)
    argv = ["upscale", str(folder), "-o", str(out), "--weights", weights, "--report", str(report)]
    assert cli.main(argv) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == str(out)
    assert f"a2f: left out: 1 hidden ({folder / '._a.png'})" in captured.err
    assert "a2f: 3 images upscaled, " in captured.err

    (out / "c.png").unlink()
    (folder / "broken.jpg").write_bytes(b"?")
    line = fails(*argv, "--resume")
    assert line == f"a2f: error: 1 of 4 images failed, for the reasons above: {folder / 'broken.jpg'}"
    content = json.loads(report.read_text())
    assert content["ignored"] == [{"file": str(folder / "._a.png"), "reason": "hidden"}]
    listed = {pathlib.Path(entry["image"]).name: entry for entry in content["images"]}
    assert {name: entry["status"] for name, entry in listed.items()} == {
        "a.png": "skipped",
        "b.png": "skipped",
        "broken.jpg": "failed",
        "c.png": "done",
    }
    assert listed["a.png"]["reason"] == "the output file exists with the expected format and size"
    assert "broken.jpg is not an image or is damaged" in listed["broken.jpg"]["error"]
    assert (listed["c.png"]["width"], listed["c.png"]["height"]) == (88, 80)
    assert listed["c.png"]["weights"] == weights

    (folder / "broken.jpg").unlink()
    assert cli.main([*argv, "--resume"]) == 0
    skipped = "a2f: 3 images skipped because the output file exists with the expected format and size: "
    assert f"{skipped}{folder / 'a.png'}, " in capsys.readouterr().err


def test_images_that_fill_the_box_are_skipped_without_failing(weights, photo, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(photo, folder / "a.png")
    assert cli.main(["upscale", str(folder), "--weights", weights, "--size", "44x40"]) == 0
    assert "1 image skipped because the image already has the requested size" in capsys.readouterr().err


def test_borders_can_be_reflected(weights, photo, tmp_path):
    assert cli.main(["upscale", photo, "-o", str(tmp_path / "o.png"), "--weights", weights, "--edge", "reflect"]) == 0
    image, model = np.asarray(Image.open(photo)), a2f_jax.load(weights)
    want = model.upscaler(edge="reflect").upscale(image)
    assert not np.array_equal(want, model.upscale(image))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "o.png")), want)


def test_errors_name_the_flag_that_remedies_them(weights, photo, fails, tmp_path):
    argv = ["upscale", photo, "-o", str(tmp_path / "o.png"), "--weights", weights]
    assert fails(*argv, "--pixel-limit", "99").endswith("(--pixel-limit)")
    assert fails(*argv, "--memory", "100MB").endswith("(--memory)")
    (tmp_path / "o.png").touch()
    assert fails(*argv).endswith("exists: choose another output, or replace it (--overwrite)")


def test_the_report_never_replaces_an_image_or_a_folder(weights, photo, fails, tmp_path):
    argv = ["upscale", photo, "-o", str(tmp_path / "o.png"), "--weights", weights, "--report"]
    assert "would replace an image" in fails(*argv, str(tmp_path / "o.png"))
    assert "would replace an image" in fails(*argv, photo)
    assert "is the folder of an image" in fails(*argv, str(tmp_path))
    (tmp_path / "other").mkdir()
    assert "is a folder" in fails(*argv, str(tmp_path / "other"))
    assert "is in a folder of the name of an image" in fails(*argv, str(tmp_path / "o.png" / "report.json"))
    assert "--report writes a file: choose a name" in fails(*argv, "-")
    assert "is in a folder of the name of an image" in fails(*argv, f"{photo}/report.json")
    assert not (tmp_path / "o.png").exists()


def test_an_existing_file_is_replaced_by_the_report_only_with_overwrite(weights, photo, fails, tmp_path):
    report = tmp_path / "report.json"
    report.write_text('{"images": []}')
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    argv = ["upscale", photo, "-o", str(tmp_path / "o.png"), "--weights", weights, "--report"]
    assert "report.json exists: " in fails(*argv, str(report))
    assert "notes.txt exists: " in fails(*argv, str(notes), "--resume")
    assert (notes.read_text(), (tmp_path / "o.png").exists()) == ("mine", False)
    assert cli.main([*argv, str(report), "--overwrite"]) == 0
    assert json.loads(report.read_text())["images"][0]["status"] == "done"


def test_the_report_never_replaces_a_fifo(weights, photo, fails, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    argv = ["upscale", photo, "-o", str(tmp_path / "o.png"), "--weights", weights, "--overwrite", "--report"]
    assert "is not a regular file" in fails(*argv, str(fifo))
    assert "is not a regular file" in fails(*argv, "/dev/null")
    assert fifo.is_fifo()
    assert not (tmp_path / "o.png").exists()


def test_a_tilde_in_the_value_of_a_flag_is_the_home_folder(weights, photo, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copy(weights, tmp_path / "w.safetensors")
    argv = ["upscale", "--output=~/out/", "--report=~/report.json", "--weights=~/w.safetensors", "~/photo.png"]
    assert cli.main(argv) == 0
    assert (tmp_path / "out" / "photo.png").is_file()
    assert (tmp_path / "report.json").is_file()
    assert not (tmp_path / "~").exists()


@pytest.mark.usefixtures("without_nohup")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_and_leaves_no_incomplete_file(number, weights, photo, tmp_path, monkeypatch, capsys):
    def enlarge(*args, **options):
        time.sleep(0.1)  # until the main thread waits
        os.kill(os.getpid(), number)
        time.sleep(0.1)  # until it has handled the signal
        return original(*args, **options)

    original = batch.enlarge
    monkeypatch.setattr(batch, "enlarge", enlarge)
    before = sorted(tmp_path.iterdir())
    assert cli.main(["upscale", photo, "-o", str(tmp_path / "o.png"), "--weights", weights]) == 130
    assert capsys.readouterr().err.splitlines() == ["a2f: stopped"]
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.usefixtures("without_nohup")
def test_a_signal_ends_the_command_while_it_waits_for_standard_input(weights, monkeypatch, capsys):
    def read():
        assert threading.current_thread() is threading.main_thread()  # which signals can interrupt
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=types.SimpleNamespace(read=read)))
    assert cli.main(["upscale", "-", "-o", "-", "--weights", weights]) == 130
    assert capsys.readouterr().err.splitlines() == ["a2f: stopped"]


def test_the_output_of_a_file_whose_name_begins_with_a_tilde_is_beside_it(weights, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.rename(photo, "~photo.png")
    assert cli.main(["upscale", "~photo.png", "--weights", weights]) == 0
    assert len(list(tmp_path.glob("~photo-x*.png"))) == 1


def test_an_image_that_would_fill_the_disk_must_be_confirmed(weights, fails, tmp_path):
    content = io.BytesIO()
    Image.new("1", (10000, 10000)).save(content, "PNG")
    small = tmp_path / "small-file.png"
    small.write_bytes(content.getvalue())
    assert small.stat().st_size < 20_000
    argv = ["upscale", str(small), "-o", str(tmp_path / "o.png"), "--weights", weights]
    line = fails(*argv, "--memory", "1300MB", "--disk", "1GB")
    assert f"{small}: 10000×10000 pixels need " in line
    assert line.endswith("allow more disk space, or more memory (--disk)")
    assert not (tmp_path / "o.png").exists()


def test_weights_that_serve_several_scales_are_used_at_the_given_one(several_scales, photo, tmp_path, fails):
    argv = ["upscale", photo, "--weights", several_scales, "-o", str(tmp_path / "large.png")]
    assert fails(*argv).endswith("pass one of 2, 3, 4 (--scale)")
    assert cli.main([*argv, "--scale", "2"]) == 0
    assert Image.open(tmp_path / "large.png").size == (88, 80)
    for factor in (["--scale", "2.5"], ["--size", "99x99"]):  # weights for another scale would give a wrong image
        assert "first run a2f convert" in fails(*argv, "--overwrite", *factor)


def test_named_pipes_are_refused_as_images_and_as_weights(photo, fails, tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    fifo, output = str(tmp_path / "fifo.png"), str(tmp_path / "o.png")
    assert "fifo.png is not a regular file" in fails("upscale", fifo, "-o", output)
    assert "fifo.png is not a regular file" in fails("upscale", photo, "-o", output, "--weights", fifo)


def test_closed_standard_input_is_an_error_of_one_line(weights, fails, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)  # as Python sets it if its descriptor is closed
    assert "standard input is closed" in fails("upscale", "-", "-o", str(tmp_path / "o.png"), "--weights", weights)
