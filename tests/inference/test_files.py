"""Files in, files out; bad input gives one line and leaves nothing behind."""

import io

import numpy as np
import pytest
from PIL import Image

from a2f_jax.errors import UserError
from a2f_jax.inference.files import upscale_files
from a2f_jax.models.a2f import A2F
from a2f_jax.models.model import Model


@pytest.fixture(scope="module")
def model(random_params):
    return Model.from_params(random_params(A2F(scale=2, features=8, blocks=2)))


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)).save(path)
    return path


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif", "bmp"])
def test_every_format_goes_in_and_out(model, photo, tmp_path, ending):
    image = tmp_path / f"in.{ending}"
    Image.open(photo).save(image)
    upscale_files(model, [image], tmp_path / f"out.{ending}")
    want = model.upscale(np.asarray(Image.open(image).convert("RGB")))
    have = np.asarray(Image.open(tmp_path / f"out.{ending}"))
    assert have.shape == (18, 24, 3)
    if ending != "jpg":
        np.testing.assert_array_equal(have, want)


def test_a_folder_is_made_and_names_are_kept(model, photo, tmp_path):
    upscale_files(model, [photo], tmp_path / "new" / "folder")
    assert Image.open(tmp_path / "new" / "folder" / "photo.png").size == (24, 18)


def test_existing_files_are_kept_unless_asked(model, photo, tmp_path):
    target = tmp_path / "out.png"
    target.write_bytes(b"precious")
    with pytest.raises(UserError, match=r"out\.png exists: choose another output or pass --overwrite"):
        upscale_files(model, [photo], target)
    assert target.read_bytes() == b"precious"
    upscale_files(model, [photo], target, overwrite=True)
    assert Image.open(target).size == (24, 18)


def test_two_images_never_share_a_result(model, photo, tmp_path):
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / "photo.png"
    twin.write_bytes(photo.read_bytes())
    with pytest.raises(UserError, match="would both be written to"):
        upscale_files(model, [photo, twin], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _encoded(mode, size, **options):
    file = io.BytesIO()
    Image.new(mode, size).save(file, **options)
    return file.getvalue()


BAD = {
    "empty.png": (b"", "not an image or is damaged"),
    "text.jpg": (b"no image at all", "not an image or is damaged"),
    "truncated.png": (_encoded("RGB", (64, 64), format="PNG")[:60], "not an image or is damaged"),
    "cmyk.jpg": (_encoded("CMYK", (16, 16), format="JPEG"), "convert it to 8-bit RGB"),
    "deep.png": (_encoded("I;16", (16, 16), format="PNG"), "convert it to 8-bit RGB"),
    "tiny.png": (_encoded("RGB", (7, 30), format="PNG"), "at least 8×8"),
    "missing.png": (None, "No such file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gives_one_line_and_no_file(model, tmp_path, name):
    content, message = BAD[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        upscale_files(model, [tmp_path / name], tmp_path / "out.png")
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.iterdir() if path.name != name]


def test_palette_images_are_upscaled_in_their_colours(model, photo, tmp_path):
    palette = Image.open(photo).quantize(16)
    palette.save(tmp_path / "palette.png")
    upscale_files(model, [tmp_path / "palette.png"], tmp_path / "out.png")
    want = model.upscale(np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png").convert("RGB")), want)


def test_a_bad_file_does_not_stop_the_others(model, photo, tmp_path, capsys):
    bad, last = tmp_path / "bad.png", tmp_path / "last.png"
    bad.write_bytes(b"?")
    last.write_bytes(photo.read_bytes())
    with pytest.raises(UserError, match=r"1 of 3 images failed: .*bad\.png"):
        upscale_files(model, [photo, bad, last], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["last.png", "photo.png"]
    assert capsys.readouterr().err.count("bad.png is not an image or is damaged") == 1
