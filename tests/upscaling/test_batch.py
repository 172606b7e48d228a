"""Upscaling of files and folders: outputs, messages, and no incomplete files."""

import io
import json
import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from a2f_jax.errors import UserError
from a2f_jax.images.reading import read_picture
from a2f_jax.upscaling.batch import Job, Options, _Pipeline, list_jobs, upscale_files


def upscale(model, *args, **options):
    upscale_files(model.inference_network, model.folded, *args, **options)


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
    with pytest.raises(UserError, match=r"out\.png exists: choose another output or pass --overwrite"):
        upscale(model, [photo], target)
    assert target.read_bytes() == b"precious"
    upscale(model, [photo], target, Options(overwrite=True))
    assert Image.open(target).size == (24, 18)


def test_two_images_with_the_same_output_are_refused(model, photo, tmp_path):
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / "photo.png"
    twin.write_bytes(photo.read_bytes())
    with pytest.raises(UserError, match="have the same output file"):
        upscale(model, [photo, twin], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _encoded(mode, size, **options):
    file = io.BytesIO()
    Image.new(mode, size).save(file, **options)
    return file.getvalue()


BAD = {
    "empty.png": (b"", "not an image or is damaged"),
    "text.jpg": (b"plain text", "not an image or is damaged"),
    "truncated.png": (_encoded("RGB", (64, 64), format="PNG")[:60], "not an image or is damaged"),
    "cmyk.jpg": (_encoded("CMYK", (16, 16), format="JPEG"), "CMYK image without a colour profile: convert it"),
    "float.tif": (_encoded("F", (16, 16), format="TIFF"), "is a F image: convert it to RGB"),
    "animated.gif": (
        _encoded("L", (16, 16), format="GIF", save_all=True, append_images=[Image.new("L", (16, 16), 255)]),
        "has 2 frames: extract them",
    ),
    "bomb.png": (_encoded("1", (20000, 20000), format="PNG"), "more than the limit of 200000000: raise --pixel-limit"),
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
    with pytest.raises(UserError, match=r"out\.jpg cannot be transparent, as its original is: choose PNG"):
        upscale(model, [tmp_path / "glass.png"], tmp_path / "out.jpg")


def test_a_result_too_large_for_its_format_is_refused_before_the_work(model, tmp_path):
    Image.new("L", (9000, 8)).save(tmp_path / "wide.png")
    with pytest.raises(UserError, match=r"18000×16 pixels, WEBP holds 16383 a side"):
        upscale(model, [tmp_path / "wide.png"], tmp_path / "out.webp")


def test_a_bad_file_does_not_stop_the_others(model, photo, tmp_path, capsys):
    bad, last = tmp_path / "bad.png", tmp_path / "last.png"
    bad.write_bytes(b"?")
    last.write_bytes(photo.read_bytes())
    with pytest.raises(UserError, match=r"1 of 3 images failed: .*bad\.png"):
        upscale(model, [photo, bad, last], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["last.png", "photo.png"]
    assert capsys.readouterr().err.count("bad.png is not an image or is damaged") == 1


@pytest.fixture
def folder(photo, tmp_path):
    for name in ("in/a.png", "in/deep/b.png", "in/deep/note.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo.read_bytes())
    return tmp_path / "in"


def test_a_folder_keeps_its_structure(model, folder, tmp_path):
    upscale(model, [folder], tmp_path / "out", Options(form="WEBP"))
    found = [str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")]
    assert sorted(found) == ["a.webp", "deep/b.webp"]


def test_a_folder_without_images_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="no images found in"):
        list_jobs([tmp_path], tmp_path / "out")


def test_an_interrupted_run_is_resumed_and_reported(model, folder, tmp_path):
    out, report = tmp_path / "out", tmp_path / "report.json"
    upscale(model, [folder / "a.png"], out / "a.png")
    before = (out / "a.png").stat().st_mtime_ns
    (folder / "broken.jpg").write_bytes(b"?")
    with pytest.raises(UserError, match="1 of 3 images failed"):
        upscale(model, [folder], out, Options(resume=True), report)
    assert (out / "a.png").stat().st_mtime_ns == before
    listed = {pathlib.Path(entry["image"]).name: entry for entry in json.loads(report.read_text())["images"]}
    assert {name: entry["status"] for name, entry in listed.items()} == {
        "a.png": "skipped",
        "b.png": "done",
        "broken.jpg": "failed",
    }
    assert "broken.jpg is not an image or is damaged" in listed["broken.jpg"]["error"]
    assert (listed["b.png"]["width"], listed["b.png"]["height"]) == (24, 18)


def test_standard_input_and_output(model, photo, monkeypatch):
    out = io.BytesIO()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(photo.read_bytes())))
    monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=out))
    upscale(model, [pathlib.Path("-")], pathlib.Path("-"), Options(form="TIFF"))
    want = model.upscale(np.asarray(Image.open(photo)))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(out.getvalue()))), want)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_large_results_are_written_strip_by_strip(model, photo, tmp_path, monkeypatch, ending):
    upscale(model, [photo], tmp_path / f"at_once.{ending}")
    monkeypatch.setattr("a2f_jax.upscaling.batch.free_memory", lambda: 100)
    upscale(model, [photo], tmp_path / f"strips.{ending}", Options(tile=8))
    images = [np.asarray(Image.open(tmp_path / f"{name}.{ending}")) for name in ("at_once", "strips")]
    np.testing.assert_allclose(images[0].astype(int), images[1], atol=1)
    with pytest.raises(UserError, match="choose PNG or TIFF, which are written strip by strip"):
        upscale(model, [photo], tmp_path / "out.jpg")


def test_images_are_distributed_over_all_local_devices(tmp_path):
    """Runs in a subprocess because the number of devices is fixed once JAX is initialized."""
    program = (
        "import sys, pathlib, jax, numpy as np\n"
        "from PIL import Image\n"
        "from a2f_jax.upscaling import batch\n"
        "from a2f_jax.models.a2f import A2F\n"
        "from a2f_jax.model import Model\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "rng = np.random.default_rng(0)\n"
        "network = A2F(scale=2, features=4, blocks=1)\n"
        "shapes = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, 8, 8, 3)))['params']\n"
        "params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype('f') / 10, shapes)\n"
        "[Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(folder / f'{i}.png') for i in range(6)]\n"
        "model = Model.from_params(params)\n"
        "batch.upscale_files(model.inference_network, model.folded, [folder], folder / 'out', batch.Options(tile=16))\n"
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
    assert "6 images" in done.stderr


def test_input_images_are_never_replaced(model, photo, tmp_path):
    for output in (photo, tmp_path):
        with pytest.raises(UserError, match=r"photo\.png is one of the input images"):
            upscale_files(
                model.inference_network,
                model.folded,
                [tmp_path if output == tmp_path else photo],
                output,
                Options(overwrite=True),
            )
    with pytest.raises(UserError, match="would replace an image: choose another name"):
        upscale(model, [photo], tmp_path / "out.png", report=tmp_path / "out.png")
    assert Image.open(photo).size == (12, 9)


def test_an_output_folder_inside_the_input_folder_is_not_searched_for_images(photo, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photo.png").write_bytes(photo.read_bytes())
    assert [job.image for job in list_jobs([tmp_path], tmp_path / "out")] == [photo]


def test_images_of_a_format_that_cannot_be_written_become_png(tmp_path):
    (tmp_path / "old.gif").touch()
    (job,) = list_jobs([tmp_path], tmp_path / "out")
    assert job.target == tmp_path / "out" / "old.png"


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
    with pytest.raises(UserError, match="1 of 2 images failed"):
        upscale_files(
            model.inference_network, model.folded, [tmp_path], tmp_path / "out", report=tmp_path / "report.json"
        )
    assert (tmp_path / "out" / "photo.png").is_file()
    assert "ZeroDivisionError: on purpose" in (tmp_path / "report.json").read_text()


def test_an_interrupted_batch_stops_within_an_image(model, photo, tmp_path):
    pipeline = _Pipeline(model.inference_network, model.folded, [Job(photo, tmp_path / "out.png")], Options(tile=8))
    pipeline.stopped.set()
    with pytest.raises(UserError, match="interrupted"):
        pipeline.run(pipeline.jobs[0])
    assert list(tmp_path.iterdir()) == [photo]
