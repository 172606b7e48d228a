"""What is made of an uploaded picture, against `Model.upscale` and Pillow."""

import pathlib
import shutil
import threading

import numpy as np
import pytest
from PIL import Image

from a2f_jax.demo import studio as studio_module
from a2f_jax.demo.studio import Studio
from a2f_jax.errors import UserError
from a2f_jax.images import Picture, read_picture
from a2f_jax.images.writing import write_picture
from a2f_jax.model import Model, load, save
from a2f_jax.models.a2f import A2F


@pytest.fixture
def studio(weights):
    return Studio({"tiny": {2: [weights]}}, pixel_limit=2000)


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_the_result_is_that_of_the_model_beside_bicubic_interpolation(studio, photo, weights):
    fractions = []
    result = studio.upscale(photo, "tiny", 2, on_progress=fractions.append)
    original = Image.open(photo)
    np.testing.assert_array_equal(Image.open(result.file), load(weights).upscale(original))
    np.testing.assert_array_equal(Image.open(result.after), Image.open(result.file))
    np.testing.assert_array_equal(Image.open(result.before), original.resize((48, 40), Image.Resampling.BICUBIC))
    assert result.file.name == "photo-x2.png"
    assert (result.size, result.result_size, result.shown_size) == ((24, 20), (48, 40), (48, 40))
    assert fractions[-1] == 1
    assert fractions == sorted(fractions)


def test_16_bits_transparency_and_the_color_profile_are_kept(studio, tmp_path):
    rng = np.random.default_rng(0)
    picture = Picture(
        rng.integers(0, 2**16, (12, 16, 3), dtype=np.uint16),
        alpha=rng.integers(0, 2**16, (12, 16), dtype=np.uint16),
        icc_profile=b"profile of some kind",
    )
    samples = np.concatenate([picture.pixels, picture.alpha[..., None]], -1)
    with (tmp_path / "deep.png").open("wb") as file:
        write_picture(file, "PNG", samples.shape, samples.dtype, [samples], picture)
    result = studio.upscale(tmp_path / "deep.png", "tiny", 2)
    written, after, before = (read_picture(file) for file in (result.file, result.after, result.before))
    assert written.pixels.dtype == written.alpha.dtype == np.uint16
    assert written.icc_profile == after.icc_profile == before.icc_profile == picture.icc_profile
    np.testing.assert_array_equal(after.pixels, written.pixels >> 8)  # browsers show 8 bits
    np.testing.assert_array_equal(after.alpha, written.alpha >> 8)
    assert before.alpha.shape == after.alpha.shape


def test_of_two_weights_those_for_the_quality_of_the_picture_are_used(photo, weights, tmp_path, random_params):
    other = str(tmp_path / "other.safetensors")
    save(Model.from_params(random_params(A2F(scale=2, features=8, blocks=1), seed=1)), other)
    studio = Studio({"automatic": {2: [weights, other]}})
    Image.open(photo).save(tmp_path / "photo.jpg", quality=60)
    for file, expected in ((photo, weights), (tmp_path / "photo.jpg", other)):
        result = studio.upscale(file, "automatic", 2)
        assert result.weights == expected
        np.testing.assert_array_equal(Image.open(result.file), load(expected).upscale(Image.open(file)))


@pytest.mark.parametrize(("limit", "value"), [("pixels", 48 * 40 - 1), ("memory", 1 << 40)])
def test_of_a_large_result_the_middle_is_shown_and_of_a_very_large_one_nothing(
    studio, photo, monkeypatch, limit, value
):
    monkeypatch.setattr(studio_module, "SHOWN_SIDE", 20)
    result = studio.upscale(photo, "tiny", 2)
    assert result.shown_size == (20, 20)
    whole = np.asarray(Image.open(result.file))
    np.testing.assert_array_equal(Image.open(result.after), whole[10:30, 14:34])
    middle = Image.fromarray(np.asarray(Image.open(photo))[5:15, 7:17])
    np.testing.assert_array_equal(Image.open(result.before), middle.resize((20, 20), Image.Resampling.BICUBIC))
    monkeypatch.setattr(studio_module, {"pixels": "SHOWN_PIXELS", "memory": "_SHOWN_BYTES"}[limit], value)
    result = studio.upscale(photo, "tiny", 2)
    assert (result.before, result.after, result.shown_size) == (None, None, None)
    assert Image.open(result.file).size == (48, 40)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((4, 20), "^photo.png: an image of 4×20 pixels is too small: it needs at least 8×8$"),
        ((50, 50), "^photo.png declares 50×50 pixels, more than the pixel limit of 2000: pass a larger limit"),
        (None, "^photo.png is not an image or is damaged: "),
    ],
)
def test_what_cannot_be_upscaled_is_named_without_its_folder(size, message, studio, photo):
    photo.write_bytes(photo.read_bytes()[:100])
    if size:
        Image.new("RGB", size).save(photo)
    with pytest.raises(UserError, match=message):
        studio.upscale(photo, "tiny", 2)
    assert not list(pathlib.Path(studio._folder.name).iterdir())


def test_a_model_without_weights_of_a_scale_is_refused(studio, photo):
    with pytest.raises(UserError, match="tiny has no weights for ×3: choose another scale"):
        studio.upscale(photo, "tiny", 3)


def test_work_can_be_stopped(studio, photo):
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(UserError, match="stopped"):
        studio.upscale(photo, "tiny", 2, stopped=stopped)


def test_a_folder_that_the_system_has_cleaned_up_is_made_again(studio, photo):
    shutil.rmtree(studio._folder.name)
    assert studio.upscale(photo, "tiny", 2).file.exists()


def test_the_files_of_a_result_can_be_deleted(studio, photo):
    first, second = (studio.upscale(photo, "tiny", 2) for _ in range(2))
    studio.discard(first)
    assert not any(path.exists() for path in (first.file, first.before, first.after))
    assert second.file.exists()
