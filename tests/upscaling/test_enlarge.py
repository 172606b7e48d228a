"""Grayscale, transparency, 16 bits and factors other than the scale of the model."""

import dataclasses
import math

import numpy as np
import pytest
from PIL import Image

import a2f_jax
from a2f_jax.errors import UserError
from a2f_jax.images.decoding import Picture
from a2f_jax.upscaling import plan
from a2f_jax.upscaling.enlarge import enlarge, enlargement_of, steps
from a2f_jax.upscaling.plan import RUNTIME, working_bytes


@pytest.fixture(scope="module")
def upscaler(model):
    return model.upscaler(tile=16)


def _noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def _enlarged(upscaler, picture, target=None, deep=True):
    to = enlargement_of(picture, upscaler.scale, target, deep)
    done = []
    result = np.concatenate(list(enlarge(upscaler, picture, to, done.append)))
    assert result.shape == (to.height, to.width, to.channels)
    assert result.dtype == to.dtype
    assert sum(done) == steps(upscaler, picture, to)
    return result


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colors_are_those_of_the_model(upscaler, dtype):
    pixels = _noise(19, 18, 3, dtype=dtype)
    np.testing.assert_array_equal(_enlarged(upscaler, Picture(pixels)), upscaler.upscale(pixels))


def test_gray_stays_gray(upscaler):
    pixels = np.repeat(_noise(12, 13, 1), 3, -1)
    want = upscaler.upscale(pixels.astype(np.float32)).mean(-1, keepdims=True)
    np.testing.assert_allclose(_enlarged(upscaler, Picture(pixels, gray=True)), np.clip(want, 0, 255), atol=0.51)


def test_16_bits_become_8_if_the_format_holds_no_more(upscaler):
    pixels = _noise(12, 13, 3, dtype=np.uint16)
    deep, flat = _enlarged(upscaler, Picture(pixels)), _enlarged(upscaler, Picture(pixels), deep=False)
    np.testing.assert_allclose(flat, deep / 257, atol=0.51)


def test_hidden_colors_do_not_bleed(upscaler):
    """The result does not depend on the colors of fully transparent pixels."""
    pixels, alpha = _noise(16, 16, 3), np.full((16, 16), 255, np.uint8)
    alpha[:, 8:] = 0
    other = pixels.copy()
    other[:, 8:] = 255 - other[:, 8:]
    first, second = (_enlarged(upscaler, Picture(p, alpha)) for p in (pixels, other))
    np.testing.assert_array_equal(first, second)


def test_colors_and_alpha_are_upscaled_separately(upscaler):
    pixels, alpha = _noise(16, 18, 3), np.full((16, 18), 128, np.uint8)
    result = _enlarged(upscaler, Picture(pixels, alpha))
    np.testing.assert_array_equal(result[..., :3], upscaler.upscale(pixels))
    cover = upscaler.upscale(np.full((16, 18, 3), 128, np.float32)).mean(-1)
    np.testing.assert_allclose(result[..., 3], np.clip(cover, 0, 255), atol=0.51)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_with_alpha_has_two_channels_at_any_factor(upscaler, dtype):
    gray, alpha = _noise(16, 18, 1, dtype=dtype), _noise(16, 18, dtype=dtype)
    alpha[:8] = 0
    picture = Picture(np.broadcast_to(gray, (16, 18, 3)), alpha, gray=True)
    result = _enlarged(upscaler, picture, 2.5)
    assert result.shape == (40, 45, 2)
    assert not result[:17, :, 1].any()
    assert result[23:, :, 1].std() > 0.1 * np.iinfo(dtype).max


@pytest.mark.parametrize("factor", [2, 2.5, 3, 4, 5])
def test_the_edge_of_a_transparent_area_is_clean(factor):
    """A gray disc on a transparent ground: its color stays 128, and alpha is 0 outside of it and 255 inside."""
    y, x = np.mgrid[:96, :96] - 47.5
    alpha = np.where(np.hypot(y, x) < 35, 255, 0).astype(np.uint8)
    pixels = np.where(alpha[..., None] > 0, np.uint8(128), np.uint8(0)).repeat(3, -1)
    upscaler = a2f_jax.load("a2f-sd", min(math.ceil(factor), 4)).upscaler()
    result = _enlarged(upscaler, Picture(pixels, alpha), factor)
    visible = result[..., 3] > 0
    np.testing.assert_allclose(result[visible, :3], 128, atol=2)
    y, x = (np.mgrid[: len(result), : len(result)] + 0.5) / factor - 48
    np.testing.assert_array_equal(result[np.hypot(y, x) > 37.5, 3], 0)
    np.testing.assert_array_equal(result[np.hypot(y, x) < 32.5, 3], 255)


def test_tiles_of_colors_and_alpha_may_differ(model):
    """The memory that is free, and so the tile size, can change between the two."""
    pixels, alpha = _noise(40, 18, 3), _noise(40, 18)
    want = _enlarged(model.upscaler(tile=16), Picture(pixels, alpha))
    upscaler, sides = model.upscaler(tile=16), [24, 16, 16]  # alpha, colors, the check before
    plan = upscaler.plan
    upscaler.plan = lambda *args: dataclasses.replace(plan(*args), side=sides.pop())
    picture = Picture(pixels, alpha)
    to = enlargement_of(picture, 2, None, True)
    result = np.concatenate(list(enlarge(upscaler, picture, to, lambda _: None)))
    assert not sides
    np.testing.assert_allclose(result.astype(int), want.astype(int), atol=1)


@pytest.mark.parametrize("factor", [1.5, 2.5])
def test_other_factors_are_upscaled_and_then_resized(upscaler, factor):
    pixels = _noise(64, 20, 3)
    large = upscaler.upscale(pixels.astype(np.float32))
    height, width = round(64 * factor), round(20 * factor)
    channels = [Image.fromarray(large[..., c]).resize((width, height), Image.Resampling.LANCZOS) for c in range(3)]
    want = np.clip(np.stack([np.asarray(c) for c in channels], -1), 0, 255)
    to = enlargement_of(Picture(pixels), 2, factor, True)
    strips = list(enlarge(upscaler, Picture(pixels), to, lambda _: None))
    assert max(map(len, strips)) <= 2 * 16 * factor  # of tiles of 16 pixels, never the whole
    np.testing.assert_allclose(np.concatenate(strips), want, atol=0.51)


def test_two_passes_are_the_model_twice(upscaler):
    pixels = _noise(16, 20, 3)
    once = np.clip(upscaler.upscale(pixels.astype(np.float32)), 0, 255)
    want = np.clip(upscaler.upscale(once), 0, 255)
    np.testing.assert_allclose(_enlarged(upscaler, Picture(pixels), 4), want, atol=0.51)


@pytest.mark.parametrize(
    ("scale", "target", "size", "passes"),
    [
        (2, None, (32, 40), 1),
        (2, 2.0, (32, 40), 1),
        (2, 2.5, (40, 50), 1),
        (2, 3.0, (48, 60), 2),
        (2, 4.0, (64, 80), 2),
        (2, (100, 64), (64, 80), 2),
        (4, 1.5, (24, 30), 1),
        (4, 5.0, (80, 100), 1),
        (4, 8.0, (128, 160), 1),
        (4, 9.0, (144, 180), 2),
        (4, 16.0, (256, 320), 2),
    ],
)
def test_the_number_of_passes_is_the_closest_to_the_factor(scale, target, size, passes):
    to = enlargement_of(Picture(_noise(16, 20, 3)), scale, target, True)
    assert (to.height, to.width, to.passes) == (*size, passes)


def test_too_little_memory_for_a_later_pass_is_refused_before_the_work(model):
    picture = Picture(_noise(400, 400, 3))
    once, twice = (enlargement_of(picture, 2, factor, True) for factor in (2, 4))
    enough = RUNTIME + picture.pixels.nbytes + working_bytes(model.network, 400, 64, "cpu", 1)
    upscaler = model.upscaler(memory=enough)
    enlarge(upscaler, picture, once, pytest.fail)
    with pytest.raises(UserError, match="memory is too little for 400×400 pixels"):
        enlarge(upscaler, picture, once, pytest.fail, reserved=1)
    kept = 12 * 800 * 800  # what the first pass makes
    with pytest.raises(UserError, match="memory is too little for 400×400 pixels"):
        enlarge(upscaler, picture, twice, pytest.fail)
    with pytest.raises(UserError, match="memory is too little for 800×800 pixels"):
        enlarge(model.upscaler(memory=enough + kept), picture, twice, pytest.fail)


@pytest.mark.parametrize("target", [1.0, 0.5, (20, 16), (10, 400)])
def test_requests_that_do_not_enlarge_are_refused(target):
    with pytest.raises(UserError, match="already has the requested size"):
        enlargement_of(Picture(_noise(16, 20, 3)), 2, target, True)


@pytest.mark.parametrize("target", [None, 3])
def test_images_with_alpha_are_computed_as_a_whole_like_in_tiles(model, monkeypatch, target):
    upscaler, picture = model.upscaler(), Picture(_noise(40, 30, 3), _noise(40, 30))
    want = _enlarged(upscaler, picture, target)
    monkeypatch.setitem(plan._LARGEST_CANVAS, "cpu", 2048)
    assert upscaler.plan(40, 30).canvas
    np.testing.assert_allclose(_enlarged(upscaler, picture, target).astype(int), want, atol=1)
