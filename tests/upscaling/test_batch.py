"""Upscaling of files and folders: outputs, messages, and no incomplete files."""

import dataclasses
import functools
import io
import os
import pathlib
import subprocess
import sys
import threading
import time
import zlib
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import ExifTags, Image

from a2f_jax import buckets
from a2f_jax.errors import UserError
from a2f_jax.files import as_path
from a2f_jax.images import write_rgb
from a2f_jax.images.reading import read_picture
from a2f_jax.model import Model
from a2f_jax.upscaling import batch
from a2f_jax.upscaling.batch import Options, _Pipeline, upscale_files
from a2f_jax.upscaling.choice import CLEAN_FROM, Candidate, Choice
from a2f_jax.upscaling.enlarge import enlarge
from a2f_jax.upscaling.worklist import Job, Worklist, list_jobs

DEFAULT = Options()


def only(model, **upscaler):
    return Choice(model.scale, Candidate("tiny", functools.partial(model.upscaler, **upscaler)))


def upscale_all(model, images, output, options=DEFAULT, **upscaler):
    work = list_jobs(images, output, options.format_name)
    return upscale_files(only(model, **upscaler), work, options)


def upscale(model, images, output, options=DEFAULT, **upscaler):
    for result in upscale_all(model, images, output, options, **upscaler).results:
        if result.error:
            raise result.error


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)).save(path)
    return path


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif", "bmp"])
def test_every_format_is_read_and_written(model, photo, tmp_path, ending):
    image = tmp_path / f"in.{ending}"
    Image.open(photo).save(image)
    upscale(model, [image], tmp_path / f"out.{ending}")
    want = model.upscale(np.asarray(Image.open(image).convert("RGB")))
    have = np.asarray(Image.open(tmp_path / f"out.{ending}"))
    assert have.shape == (18, 24, 3)
    if ending != "jpg":
        np.testing.assert_array_equal(have, want)


def test_a_missing_output_folder_is_created_and_file_names_are_kept(model, photo, tmp_path):
    upscale(model, [photo], tmp_path / "new" / "folder")
    assert Image.open(tmp_path / "new" / "folder" / "photo.png").size == (24, 18)


def test_existing_files_are_replaced_only_with_overwrite(model, photo, tmp_path):
    target = tmp_path / "out.png"
    target.write_bytes(b"precious")
    with pytest.raises(UserError, match=r"out\.png exists: choose another output, or replace it") as caught:
        upscale(model, [photo], target)
    assert caught.value.parameter == "overwrite"
    assert target.read_bytes() == b"precious"
    upscale(model, [photo], target, Options(overwrite=True))
    assert Image.open(target).size == (24, 18)


def test_two_images_with_the_same_output_are_refused(model, photo, tmp_path):
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / "photo.png"
    twin.write_bytes(photo.read_bytes())
    third = tmp_path / "other" / "photo.gif"
    Image.open(photo).save(third)
    with pytest.raises(UserError, match=r"have the same .*photo\.png; .*gif have the same .*: upscale them into diff"):
        upscale(model, [photo, twin, third], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _encoded(mode, size, **options):
    file = io.BytesIO()
    Image.new(mode, size).save(file, **options)
    return file.getvalue()


BAD = {
    "empty.png": (b"", "not an image or is damaged"),
    "text.jpg": (b"plain text", "not an image or is damaged"),
    "truncated.png": (_encoded("RGB", (64, 64), format="PNG")[:60], "not an image or is damaged"),
    "cmyk.jpg": (_encoded("CMYK", (16, 16), format="JPEG"), "CMYK image without a color profile: convert it"),
    "animated.gif": (
        _encoded("L", (16, 16), format="GIF", save_all=True, append_images=[Image.new("L", (16, 16), 255)]),
        "has 2 frames: save the frame",
    ),
    "bomb.png": (
        _encoded("1", (20000, 20000), format="PNG"),
        "more than the pixel limit of 200000000: pass a larger limit",
    ),
    "tiny.png": (_encoded("RGB", (7, 30), format="PNG"), "at least 8×8"),
    "missing.png": (None, "No such file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gives_a_one_line_error_and_no_output(model, tmp_path, name):
    content, message = BAD[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        upscale(model, [tmp_path / name], tmp_path / "out.png")
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.iterdir() if path.name != name]


def test_palette_images_are_upscaled_in_color(model, photo, tmp_path):
    palette = Image.open(photo).quantize(16)
    palette.save(tmp_path / "palette.png")
    upscale(model, [tmp_path / "palette.png"], tmp_path / "out.png")
    want = model.upscale(np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png").convert("RGB")), want)


def test_a_transparent_image_is_not_written_as_jpeg(model, tmp_path):
    Image.new("RGBA", (16, 16), (255, 0, 0, 100)).save(tmp_path / "glass.png")
    with pytest.raises(
        UserError, match=r"out\.jpg: the image is transparent, and JPEG does not support transparency: use PNG"
    ):
        upscale(model, [tmp_path / "glass.png"], tmp_path / "out.jpg")


def test_a_result_too_large_for_its_format_is_refused_before_the_work(model, tmp_path):
    Image.new("L", (9000, 8)).save(tmp_path / "wide.png")
    with pytest.raises(UserError, match=r"18000×16 pixels, but WEBP allows at most 16383 per side"):
        upscale(model, [tmp_path / "wide.png"], tmp_path / "out.webp")


def test_a_bad_file_does_not_stop_the_others(model, photo, tmp_path):
    bad, last = tmp_path / "bad.png", tmp_path / "last.png"
    bad.write_bytes(b"?")
    last.write_bytes(photo.read_bytes())
    outcome = upscale_all(model, [photo, bad, last], tmp_path / "out")
    assert [result.status for result in outcome.results] == ["done", "failed", "done"]
    assert "bad.png is not an image or is damaged" in str(outcome.results[1].error)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["last.png", "photo.png"]


def test_failures_are_reported_as_they_happen(model, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"?")
    errors = []
    work = list_jobs([tmp_path], tmp_path / "out")
    outcome = upscale_files(only(model), work, on_failure=errors.append)
    assert errors == [outcome.results[0].error]


@pytest.fixture
def folder(photo, tmp_path):
    for name in ("in/a.png", "in/deep/b.png", "in/deep/note.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo.read_bytes())
    return tmp_path / "in"


def test_a_folder_keeps_its_structure(model, folder, tmp_path):
    upscale(model, [folder], tmp_path / "out", Options(format_name="WEBP"))
    found = [str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")]
    assert sorted(found) == ["a.webp", "deep/b.webp"]


def test_a_folder_without_images_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="no images found in"):
        list_jobs([tmp_path], tmp_path / "out")


def test_a_resumed_run_upscales_what_is_missing(model, folder, tmp_path):
    out = tmp_path / "out"
    upscale(model, [folder / "a.png"], out / "a.png")
    before = (out / "a.png").stat().st_mtime_ns
    done, new = upscale_all(model, [folder], out, Options(resume=True)).results
    assert (done.status, done.reason) == ("skipped", "the output file exists with the expected format and size")
    assert (out / "a.png").stat().st_mtime_ns == before
    assert (new.status, new.width, new.height) == ("done", 24, 18)


@pytest.mark.parametrize(
    ("changed", "found", "expected"),
    [
        (Options(target=3.0), "PNG of 24×18", "PNG of 36×27"),
        (Options(target=(40, 999)), "PNG of 24×18", "PNG of 40×30"),
        (Options(format_name="WEBP"), "PNG of 24×18", "WEBP of 24×18"),
    ],
)
def test_results_of_other_options_do_not_count_as_finished(model, photo, tmp_path, changed, found, expected):
    target = tmp_path / "out.png"
    upscale(model, [photo], target)
    content = target.read_bytes()
    resumed = dataclasses.replace(changed, resume=True)
    with pytest.raises(
        UserError, match=rf"out\.png exists, but it is {found} pixels instead of {expected} pixels"
    ) as caught:
        upscale(model, [photo], target, resumed)
    assert caught.value.parameter == "overwrite"
    assert target.read_bytes() == content
    upscale(model, [photo], target, dataclasses.replace(resumed, overwrite=True))
    assert target.read_bytes() != content


@pytest.mark.parametrize("ending", [".png", ".jpg"])
@pytest.mark.parametrize("kept", [0, 0.9])
def test_a_result_that_was_cut_off_is_upscaled_again(model, photo, tmp_path, ending, kept):
    output = tmp_path / f"out{ending}"
    upscale(model, [photo], output)
    whole = output.read_bytes()
    output.write_bytes(whole[: int(kept * len(whole))])
    for status in ("done", "skipped"):
        (result,) = upscale_all(model, [photo], output, Options(resume=True)).results
        assert (result.status, output.read_bytes()) == (status, whole)


def test_images_and_finished_results_in_a_bucket_are_not_downloaded_to_resume(model, bucket, tmp_path, monkeypatch):
    local, photo, result = tmp_path / "photo.jpg", as_path(f"{bucket}/photo.jpg"), as_path(f"{bucket}/photo.png")
    pixels, turned = np.random.default_rng(0).integers(0, 256, (250, 260, 3), dtype=np.uint8), Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    Image.fromarray(pixels).save(local, quality=95, exif=turned)
    buckets.upload(local, photo)
    upscale(model, [photo], result)
    assert min(len(local.read_bytes()), len(result.read_bytes())) > batch._START
    monkeypatch.setattr(buckets, "download", lambda *_: pytest.fail("downloaded"))
    (found,) = upscale_all(model, [photo], result, Options(resume=True)).results
    assert found.status == "skipped"


def test_an_image_in_a_bucket_whose_orientation_follows_its_pixels_is_read_whole_to_resume(
    model, bucket, tmp_path, monkeypatch
):
    local, photo, result = tmp_path / "photo.png", as_path(f"{bucket}/photo.png"), as_path(f"{bucket}/result.png")
    write_rgb(local, np.random.default_rng(0).integers(0, 256, (150, 160, 3), dtype=np.uint8))
    orientation = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # 6: turned by 90°
    chunk = b"eXIf" + orientation
    whole, end = local.read_bytes(), len(b"\0\0\0\0IEND\0\0\0\0")
    late = len(orientation).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    local.write_bytes(whole[:-end] + late + whole[-end:])
    assert len(whole) > batch._START
    buckets.upload(local, photo)
    downloads, download = [], buckets.download
    monkeypatch.setattr(buckets, "download", lambda *paths: downloads.append(paths) or download(*paths))
    for status in ("done", "skipped"):
        (found,) = upscale_all(model, [photo], result, Options(resume=True)).results
        assert found.status == status
    assert Image.open(io.BytesIO(result.read_bytes())).size == (300, 320)
    assert len(downloads) == 2
    cut_off = tmp_path / "cut-off.png"
    cut_off.touch()
    upscale(model, [photo], cut_off, Options(resume=True))
    assert len(downloads) == 3


def test_an_image_in_a_bucket_that_exceeds_the_limit_is_refused_before_it_is_downloaded(
    model, bucket, photo, tmp_path, monkeypatch
):
    jpeg, result = as_path(f"{bucket}/large.jpg"), tmp_path / "result.png"
    Image.new("RGB", (50, 60)).save(tmp_path / "large.jpg")
    buckets.upload(tmp_path / "large.jpg", jpeg)
    upscale(model, [photo], result)
    monkeypatch.setattr(buckets, "download", lambda *_: pytest.fail("downloaded"))
    with pytest.raises(UserError, match=r"large\.jpg .*pixels"):
        upscale(model, [jpeg], result, Options(resume=True, pixel_limit=1000))


def test_an_unreadable_output_file_does_not_count_as_finished(model, photo, tmp_path):
    (tmp_path / "out.png").write_bytes(b"precious")
    with pytest.raises(UserError, match=r"out\.png exists, but it is no image instead of PNG of 24×18 pixels"):
        upscale(model, [photo], tmp_path / "out.png", Options(resume=True))
    assert (tmp_path / "out.png").read_bytes() == b"precious"


def test_of_several_images_those_that_fill_the_box_are_skipped(model, folder, tmp_path):
    Image.new("RGB", (30, 20)).save(folder / "large.png")
    outcome = upscale_all(model, [folder], tmp_path / "out", Options(target=(18, 18)))
    assert [(result.status, result.reason) for result in outcome.results] == [
        ("done", None),
        ("done", None),
        ("skipped", "the image already has the requested size"),
    ]
    assert not (tmp_path / "out" / "large.png").exists()
    with pytest.raises(UserError, match="already has the requested size: request a larger one"):
        upscale(model, [folder / "large.png"], tmp_path / "out.png", Options(target=(18, 18)))


def test_without_progress_nothing_is_printed(model, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("a2f_jax.progress.LOG_INTERVAL", 0)
    upscale(model, [folder], tmp_path / "out", Options(progress=False))
    assert capsys.readouterr().err == ""
    upscale(model, [folder], tmp_path / "again")
    assert "2/2 images" in capsys.readouterr().err


def test_standard_input_and_output(model, photo, monkeypatch):
    out = io.BytesIO()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(photo.read_bytes())))
    monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=out))
    upscale(model, [pathlib.Path("-")], pathlib.Path("-"), Options(format_name="TIFF"))
    want = model.upscale(np.asarray(Image.open(photo)))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(out.getvalue()))), want)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_large_results_are_written_strip_by_strip(model, photo, tmp_path, monkeypatch, ending):
    upscale(model, [photo], tmp_path / f"at_once.{ending}")
    monkeypatch.setattr("a2f_jax.upscaling.batch.free_memory", lambda: 100)
    upscale(model, [photo], tmp_path / f"strips.{ending}", tile=8)
    images = [np.asarray(Image.open(tmp_path / f"{name}.{ending}")) for name in ("at_once", "strips")]
    np.testing.assert_allclose(images[0].astype(int), images[1], atol=1)
    with pytest.raises(UserError, match="choose PNG or TIFF, which are written strip by strip"):
        upscale(model, [photo], tmp_path / "out.jpg")


@pytest.mark.parametrize(("target", "edge"), [(2.6, "zero"), (None, "reflect"), (None, "zero")])
def test_a_tiff_of_several_rows_of_tiles_holds_the_pixels_of_the_png(model, tmp_path, target, edge):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 12, 3), np.uint8)).save(tmp_path / "in.png")
    for ending in ("png", "tif"):
        upscale(model, [tmp_path / "in.png"], tmp_path / f"out.{ending}", Options(target=target), tile=16, edge=edge)
    png, tiff = (np.asarray(Image.open(tmp_path / f"out.{ending}")) for ending in ("png", "tif"))
    np.testing.assert_array_equal(tiff, png)


def test_the_memory_of_a_result_that_is_kept_is_reserved(model, photo, tmp_path, monkeypatch):
    reserved = []

    def spy(*args, **options):
        reserved.append(options["reserved"])
        return enlarge(*args, **options)

    monkeypatch.setattr("a2f_jax.upscaling.batch.enlarge", spy)
    upscale(model, [photo], tmp_path / "kept.png")
    monkeypatch.setattr("a2f_jax.upscaling.batch.free_memory", lambda: 100)
    upscale(model, [photo], tmp_path / "strips.png")
    assert reserved == [18 * 24 * 3, 0]


def test_images_are_distributed_over_all_local_devices(tmp_path):
    """Runs in a subprocess because the number of devices is fixed once JAX is initialized."""
    program = (
        "import functools, sys, pathlib, jax, numpy as np\n"
        "from PIL import Image\n"
        "from a2f_jax.upscaling import batch, choice, worklist\n"
        "from a2f_jax.models.a2f import A2F\n"
        "from a2f_jax.model import Model\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "rng = np.random.default_rng(0)\n"
        "network = A2F(scale=2, features=4, blocks=1)\n"
        "shapes = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, 8, 8, 3)))['params']\n"
        "params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype('f') / 10, shapes)\n"
        "[Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(folder / f'{i}.png') for i in range(6)]\n"
        "model = Model.from_params(params)\n"
        "work = worklist.list_jobs([folder], folder / 'out')\n"
        "weights = choice.Candidate('tiny', functools.partial(model.upscaler, tile=16))\n"
        "batch.upscale_files(choice.Choice(2, weights), work)\n"
        "for i in range(6):\n"
        "    want = model.upscale(np.asarray(Image.open(folder / f'{i}.png')))\n"
        "    assert (np.asarray(Image.open(folder / 'out' / f'{i}.png')) == want).mean() > 0.99\n"
        "print(len(jax.local_devices()))\n"
    )
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "2"


@pytest.fixture
def four_cores(monkeypatch):
    for module in ("batch", "plan"):
        monkeypatch.setattr(f"a2f_jax.upscaling.{module}.usable_cores", lambda: 4)
    device = jax.local_devices()[0]
    monkeypatch.setattr(jax, "local_devices", lambda: [device])


def test_small_images_share_the_cores(model, photo, tmp_path, monkeypatch, four_cores):
    """Four images of one tile each are computed at the same time: each waits for the others."""
    meeting = threading.Barrier(4, timeout=60)

    def meet(*args, **options):
        meeting.wait()
        return enlarge(*args, **options)

    (tmp_path / "in").mkdir()
    for i in range(8):
        (tmp_path / "in" / f"{i}.png").write_bytes(photo.read_bytes())
    monkeypatch.setattr("a2f_jax.upscaling.batch.enlarge", meet)
    outcome = upscale_all(model, [tmp_path / "in"], tmp_path / "out")
    assert [result.error for result in outcome.results] == [None] * 8
    assert 0 <= outcome.idle < 1
    want = model.upscale(np.asarray(Image.open(photo)))
    for i in range(8):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / f"{i}.png")), want)


def test_an_image_of_many_tiles_is_computed_alone(model, tmp_path, monkeypatch, four_cores):
    running, most = [], []

    def watch(upscaler, picture, to, *args, **options):
        running.append(picture.pixels.shape[0])
        if max(running) > 64:
            most.append(len(running))
        yield from enlarge(upscaler, picture, to, *args, **options)
        running.remove(picture.pixels.shape[0])

    (tmp_path / "in").mkdir()
    for i, side in enumerate([16, 100, 16, 16, 100, 16]):
        Image.new("RGB", (side, side)).save(tmp_path / "in" / f"{i}.png")
    monkeypatch.setattr("a2f_jax.upscaling.batch.enlarge", watch)
    upscale(model, [tmp_path / "in"], tmp_path / "out", tile=64)
    assert most == [1, 1]


def test_who_needs_many_slots_does_not_wait_for_all_who_need_few():
    slots = batch._Slots(range(2))
    order = []

    def take(name, count):
        with slots.take(count):
            order.append(name)

    with slots.take(1):
        many = threading.Thread(target=take, args=("many", 2))
        many.start()
        while not slots._turn.locked():
            time.sleep(0.001)
        few = threading.Thread(target=take, args=("few", 1))
        few.start()
        few.join(0.1)
        assert order == []
    many.join()
    few.join()
    assert order == ["many", "few"]


def test_input_images_are_never_replaced(photo, tmp_path):
    for image, output in ((photo, photo), (tmp_path, tmp_path)):
        with pytest.raises(UserError, match=r"photo\.png is one of the input images"):
            list_jobs([image], output)


def test_metadata_too_large_for_a_jpeg_is_dropped(model, photo, tmp_path):
    Image.open(photo).save(tmp_path / "in.webp", lossless=True, xmp=b"<x>" + b" " * 70_000)
    upscale(model, [tmp_path / "in.webp"], tmp_path / "out.jpg")
    assert Image.open(tmp_path / "out.jpg").size == (24, 18)


def test_an_unexpected_exception_does_not_stop_the_other_images(model, photo, tmp_path, monkeypatch):
    def broken(source, limit):
        if source.name == "bad.png":
            raise ZeroDivisionError("on purpose")
        return read_picture(source, limit)

    (tmp_path / "bad.png").write_bytes(photo.read_bytes())
    monkeypatch.setattr("a2f_jax.upscaling.batch.read_picture", broken)
    bad, good = upscale_all(model, [tmp_path], tmp_path / "out").results
    assert str(bad.error) == f"{tmp_path / 'bad.png'}: ZeroDivisionError: on purpose"
    assert (good.status, (tmp_path / "out" / "photo.png").is_file()) == ("done", True)


def test_an_interrupted_batch_stops_within_an_image(model, photo, tmp_path):
    job = Job(photo, tmp_path / "out.png")
    pipeline = _Pipeline(only(model, tile=8), Worklist([job]), Options())
    pipeline.stopped.set()
    with pytest.raises(UserError, match="interrupted"):
        pipeline.run(job)
    assert list(tmp_path.iterdir()) == [photo]


@pytest.mark.parametrize("length", [255, 256])
def test_names_of_up_to_255_bytes_work_and_longer_ones_fail_before_the_work(
    model, photo, tmp_path, length, monkeypatch
):
    target = tmp_path / ("x" * (length - 4) + ".png")
    if length == 255:
        upscale(model, [photo], target)
        assert target.is_file()
        return
    monkeypatch.setattr("a2f_jax.upscaling.batch.enlarge", None)  # would fail
    with pytest.raises(UserError, match=r"cannot write .*: File name too long"):
        upscale(model, [photo], target)


def test_a_folder_of_the_name_of_the_output_is_found_before_the_work(model, photo, tmp_path):
    (tmp_path / "out" / "photo.png").mkdir(parents=True)
    with pytest.raises(UserError, match=r"photo\.png is a folder: choose another output"):
        upscale(model, [photo], tmp_path / "out", Options(overwrite=True))


@pytest.fixture
def two_devices(monkeypatch):
    """Instead of eight, each of which would compile the programs for itself."""
    devices = jax.local_devices()[:2]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)


@pytest.fixture
def other_model(random_params, model):
    return Model.from_params(random_params(model.network, seed=1))


@pytest.fixture
def mixed(photo, tmp_path):
    """A folder with a PNG file, and JPEG files of the qualities below and at the threshold."""
    (tmp_path / "mixed").mkdir()
    image = Image.open(photo)
    image.save(tmp_path / "mixed" / "a.png")
    for name, quality in (("b.jpg", CLEAN_FROM - 1), ("c.jpg", CLEAN_FROM)):
        image.save(tmp_path / "mixed" / name, quality=quality)
    return tmp_path / "mixed"


@pytest.mark.usefixtures("two_devices")
def test_each_image_is_upscaled_with_the_weights_for_its_quality(model, other_model, mixed, tmp_path, capsys):
    choice = Choice(2, Candidate("clean", model.upscaler), Candidate("photo", other_model.upscaler))
    work = list_jobs([mixed], tmp_path / "out", "PNG")
    outcome = upscale_files(choice, work, Options(format_name="PNG", verbose=True))
    assert [result.weights for result in outcome.results] == ["clean", "photo", "clean"]
    for job, expected in zip(work.jobs, (model, other_model, model), strict=True):
        want = expected.upscale(np.asarray(Image.open(job.image)))
        np.testing.assert_array_equal(np.asarray(Image.open(job.output)), want)
    lines = capsys.readouterr().err.splitlines()
    for name, source, weights in (
        ("a.png", "PNG", "clean"),
        ("b.jpg", f"JPEG of quality {CLEAN_FROM - 1}", "photo"),
        ("c.jpg", f"JPEG of quality {CLEAN_FROM}", "clean"),
    ):
        assert f"a2f: {mixed / name}: {source}, {weights}" in lines


@pytest.mark.usefixtures("two_devices")
def test_an_upscaler_is_made_once_for_each_device_and_only_if_an_image_needs_it(model, folder, tmp_path):
    made = []

    def make(**options):
        made.append(options)
        return model.upscaler(**options)

    choice = Choice(2, Candidate("clean", make), Candidate("photo", None))  # None would fail
    for name in ("c.png", "d.png"):
        (folder / name).write_bytes((folder / "a.png").read_bytes())
    outcome = upscale_files(choice, list_jobs([folder], tmp_path / "out"))
    assert [result.weights for result in outcome.results] == ["clean"] * 4
    used = [options["device"] for options in made]
    assert len(used) == len({*used})
    assert {options["concurrent"] for options in made} == {2}


def test_images_that_are_not_upscaled_have_no_weights(model, folder, tmp_path):
    upscale(model, [folder / "a.png"], tmp_path / "out" / "a.png")
    (folder / "bad.png").write_bytes(b"?")
    outcome = upscale_all(model, [folder], tmp_path / "out", Options(resume=True))
    assert [(r.status, r.weights) for r in outcome.results] == [("skipped", None), ("failed", None), ("done", "tiny")]


def test_a_file_that_appears_before_the_work_is_not_replaced_unasked(model, photo, tmp_path, monkeypatch):
    def reads_slowly(*args, **options):
        (tmp_path / "out.png").write_bytes(b"precious")
        return read_picture(*args, **options)

    monkeypatch.setattr(batch, "read_picture", reads_slowly)
    with pytest.raises(UserError, match=r"out\.png was created by another process in the meantime: choose"):
        upscale(model, [photo], tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes() == b"precious"


def test_a_file_that_appears_during_the_work_is_not_replaced_unasked(model, photo, tmp_path):
    target = tmp_path / "out.png"

    def create(done, total):
        target.write_bytes(b"precious")

    with pytest.raises(UserError, match=r"out\.png was created by another process in the meantime: choose"):
        upscale(model, [photo], target, Options(on_progress=create))
    assert target.read_bytes() == b"precious"
    assert not list(tmp_path.glob(".*"))
    for options in (Options(on_progress=create, overwrite=True), Options(on_progress=create, resume=True)):
        target.unlink()
        upscale(model, [photo], target, options)
        assert Image.open(target).size == (24, 18)


def test_a_link_to_nothing_is_named_when_a_batch_is_resumed(model, photo, tmp_path):
    target = tmp_path / "out.png"
    target.symlink_to(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"out\.png is a link to nothing: remove it"):
        upscale(model, [photo], target, Options(resume=True))


@pytest.mark.parametrize("suffix", [".jpe", ".jif", ".mpo", ".apng", ".avifs", ".PNG"])
def test_images_of_a_folder_are_found_under_all_their_suffixes(model, tmp_path, suffix):
    (tmp_path / "photos").mkdir()
    file = tmp_path / "photos" / f"a{suffix}"
    Image.new("RGB", (12, 9)).save(file, {".apng": "PNG", ".PNG": "PNG", ".avifs": "AVIF"}.get(suffix, "JPEG"))
    upscale(model, [tmp_path / "photos"], tmp_path / "out")
    (result,) = (tmp_path / "out").iterdir()
    assert Image.open(result).size == (24, 18)


def test_resume_removes_what_killed_processes_have_left_long_ago(model, photo, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    old, new, other = (folder / f".photo.png.{name}" for name in (
        "0123abcd.17.89abcdef.partial", "0123abcd.18.89abcdef.partial", "backup.partial"
    ))  # fmt: skip
    for file in (old, new, other):
        file.write_bytes(b"")
    for file in (old, other):
        os.utime(file, (time.time() - 25 * 3600,) * 2)
    upscale(model, [photo], folder, Options(resume=True))
    assert sorted(folder.iterdir()) == sorted([new, other, folder / "photo.png"])
