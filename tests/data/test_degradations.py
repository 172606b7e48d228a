"""Each degradation against its definition, and their composition."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from PIL import Image

from a2f_jax.data import matlab_bicubic
from a2f_jax.data.degradations import (
    Degradation,
    degrade,
    degrade_batch,
    downscale,
    gaussian_blur,
    gaussian_noise,
    poisson_noise,
)
from a2f_jax.data.jpeg_simulation import jpeg

NOTHING = Degradation(
    blur_probability=0.0,
    blur_sigma=(0.5, 0.5),
    blur_ratio=2.0,
    resize_kernels=("bicubic",),
    noise_probability=0.0,
    noise_sigma=(1.0, 4.0),
    poisson_probability=0.0,
    gray_probability=0.0,
    jpeg_probability=0.0,
    jpeg_quality=(60, 60),
    subsampling_probability=1.0,
)
EVERYTHING = dataclasses.replace(
    NOTHING,
    blur_sigma=(0.1, 0.5),
    resize_kernels=("bicubic", "bilinear", "area"),
    **{f"{name}_probability": 0.5 for name in ("blur", "noise", "poisson", "gray", "jpeg", "subsampling")},
    jpeg_quality=(40, 95),
)

run = jax.jit(degrade, static_argnums=3)
run_many = jax.jit(jax.vmap(degrade, (None, 0, None, None)), static_argnums=3)
make_pairs = jax.jit(degrade_batch, static_argnums=(2, 3))


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Disables optimizations, which take more time than they save."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def hr():
    return np.random.default_rng(0).integers(0, 256, (48, 36, 3), dtype=np.uint8)


def test_an_isotropic_blur_is_that_of_scipy(hr):
    image = np.float32(hr)
    # Beyond three standard deviations, both repeat the pixels at the edge.
    want = scipy.ndimage.gaussian_filter(np.float64(hr), (2, 2, 0), mode="nearest", truncate=6)
    np.testing.assert_allclose(gaussian_blur(image, 2.0, 1.0, 0.3, radius=12), want, atol=0.01)
    np.testing.assert_allclose(gaussian_blur(image, 0.0, 2.0, 0.3, radius=12), image, atol=1e-3)


@pytest.mark.parametrize("angle", [0.0, 0.7, np.pi / 2, 2.5])
def test_an_anisotropic_blur_is_the_convolution_with_its_kernel(hr, angle):
    y, x = np.mgrid[-9:10, -9:10]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kernel = np.exp(-((along / 2.4) ** 2 + (across / 1.6) ** 2) / 2)[..., None]
    want = scipy.ndimage.convolve(np.float64(hr), kernel / kernel.sum(), mode="nearest")
    np.testing.assert_allclose(gaussian_blur(np.float32(hr), 2.4, 1.5, angle, radius=9), want, atol=0.1)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_kernels_of_resizing(hr, scale):
    image = np.float32(hr)
    bicubic, bilinear, area = (downscale(image, i, scale=scale) for i in range(3))
    # MATLAB also rounds between the passes.
    np.testing.assert_allclose(bicubic.clip(0, 255), matlab_bicubic(hr, 1 / scale), atol=1.5)
    np.testing.assert_allclose(area, image.reshape(48 // scale, scale, 36 // scale, scale, 3).mean((1, 3)), rtol=1e-5)
    size = 36 // scale, 48 // scale
    planes = [Image.fromarray(x).resize(size, Image.Resampling.BILINEAR) for x in np.moveaxis(image, -1, 0)]
    # At the edges, Pillow leaves out what lies outside of the image.
    np.testing.assert_allclose(bilinear[1:-1, 1:-1], np.stack(planes, -1)[1:-1, 1:-1], rtol=1e-4)


@pytest.mark.parametrize("level", [0.0, 3.0, 20.0, 250.0])
@pytest.mark.parametrize("sigma", [0.5, 4.0])
def test_poisson_noise_has_the_quantiles_of_its_distribution(level, sigma):
    photons = 127.5 / sigma**2
    cumulative = np.linspace(0.001, 0.999, 999)
    normal = np.float32(scipy.stats.norm.ppf(cumulative)).reshape(37, 27, 1)
    noisy = poisson_noise(jnp.full((37, 27, 3), level), normal, sigma)
    assert noisy.shape == (37, 27, 3)
    want = scipy.stats.poisson.ppf(cumulative, level * photons).reshape(37, 27)
    counts = np.rint(np.asarray(noisy)[..., 0] * photons)
    # The quantiles are whole numbers; a few of them are one too high or too low.
    assert np.abs(counts - want).max() <= 1
    assert (counts != want).mean() < 0.02


def test_gaussian_noise_has_its_standard_deviation():
    normal = jax.random.normal(jax.random.key(0), (100, 100, 3))
    noisy = gaussian_noise(jnp.full((100, 100, 3), 127.0), normal, 5.0)
    assert np.std(noisy) == pytest.approx(5, rel=0.02)
    assert np.mean(noisy) == pytest.approx(127, abs=0.1)


@pytest.fixture(scope="module")
def key():
    return jax.random.key(3)


def test_without_any_degradation_lr_is_bicubic(hr, key):
    lr = run(hr, key, NOTHING, 2)
    assert lr.dtype == jnp.uint8
    # MATLAB also rounds between the passes.
    np.testing.assert_allclose(lr.astype(int), matlab_bicubic(hr, 1 / 2), atol=1)


def test_stages_follow_each_other_as_in_a_camera(hr, key):
    blurred = dataclasses.replace(NOTHING, blur_probability=1.0, blur_ratio=1.0)
    want = downscale(gaussian_blur(np.float32(hr), 1.0, 1.0, 0.0, radius=3), 0, scale=2)
    lr = run(hr, key, blurred, 2)
    np.testing.assert_allclose(lr, want, atol=0.51)
    compressed = run(hr, key, dataclasses.replace(blurred, jpeg_probability=1.0), 2)
    np.testing.assert_array_equal(compressed, jpeg(np.float32(lr), 60, True))
    noisy = run(hr, key, dataclasses.replace(blurred, noise_probability=1.0, noise_sigma=(4.0, 4.0)), 2)
    assert np.std(np.float32(noisy) - np.float32(lr)) == pytest.approx(4, rel=0.1)
    gray = dataclasses.replace(blurred, noise_probability=1.0, noise_sigma=(4.0, 4.0), gray_probability=1.0)
    difference = np.int32(run(hr, key, gray, 2)) - np.int32(lr)
    inside = (np.int32(lr) > 30).all(-1) & (np.int32(lr) < 225).all(-1)  # where nothing is clipped
    assert (np.ptp(difference, -1)[inside] == 0).all()


def test_every_kind_of_degradation_occurs_as_often_as_required():
    flat = np.full((8, 8, 3), 100, np.uint8)
    edge = flat.copy()
    edge[:, 4:] = 200
    keys = jax.random.split(jax.random.key(0), 1000)
    only_noise = dataclasses.replace(NOTHING, noise_probability=0.3, noise_sigma=(4.0, 4.0))
    only_blur = dataclasses.replace(NOTHING, blur_probability=0.7)
    for image, degradation, share in ((flat, only_noise, 0.3), (edge, only_blur, 0.7)):
        lr = run_many(image, keys, degradation, 2)
        changed = (np.asarray(lr) != matlab_bicubic(image, 1 / 2)).any((1, 2, 3))
        # Three standard deviations of a binomial distribution.
        assert changed.mean() == pytest.approx(share, abs=0.045)


def test_a_degradation_does_not_depend_on_the_settings_of_the_process(hr, key):
    def lr():
        return np.asarray(jax.jit(degrade, static_argnums=(2, 3))(hr, key, EVERYTHING, 2))

    want = lr()
    for setting in (jax.threefry_partitionable(False), jax.enable_x64(True)):
        with setting:
            np.testing.assert_array_equal(lr(), want)


def test_pairs_are_made_with_64_bits_too(batch):
    with jax.enable_x64(True):
        pairs = jax.eval_shape(lambda batch: degrade_batch(batch, EVERYTHING, 2, 8), batch)
    assert {name: (x.shape, str(x.dtype)) for name, x in pairs.items()} == {
        "lr": ((8, 8, 8, 3), "uint8"),
        "hr": ((8, 16, 16, 3), "uint8"),
    }


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    size = 2 * EVERYTHING.source_size(8)
    return {
        "hr": rng.integers(0, 256, (8, size, size, 3), dtype=np.uint8),
        "key": rng.integers(0, 2**32, (8, 2), dtype=np.uint32),
    }


def test_a_pair_does_not_depend_on_the_others_in_its_batch(batch):
    whole, part = (
        make_pairs(x, EVERYTHING, 2, 8) for x in (batch, {name: value[2:3] for name, value in batch.items()})
    )
    for name in ("lr", "hr"):
        np.testing.assert_array_equal(part[name], whole[name][2:3])
    assert whole["lr"].shape == (8, 8, 8, 3)
    assert whole["hr"].shape == (8, 16, 16, 3)


def test_lr_and_hr_show_the_same_area_at_every_place_of_the_grid(batch):
    pairs = make_pairs(batch, NOTHING, 2, 8)
    places = set()
    for lr, hr, source in zip(*map(np.asarray, (pairs["lr"], pairs["hr"], batch["hr"])), strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(source, (16, 16, 3))[..., 0, :, :, :]
        ((top, left),) = np.argwhere((windows == hr).all((2, 3, 4)))
        places.add((top // 2 % 8, left // 2 % 8))
        # Away from its own edges, as inside of the larger image.
        assert top >= 2 * NOTHING.border()
        assert left >= 2 * NOTHING.border()
        around = matlab_bicubic(source[top - 4 : top + 20, left - 4 : left + 20], 1 / 2)[2:-2, 2:-2]
        np.testing.assert_allclose(lr.astype(int), around, atol=1)
    assert len(places) > 4


def test_the_edge_of_the_source_does_not_reach_the_patch(batch):
    degradation = dataclasses.replace(EVERYTHING, blur_probability=1.0)
    border = 2 * degradation.border()
    changed = batch["hr"].copy()
    changed[:, 0] = 255 - changed[:, 0]
    assert border > 2
    whole, other = (
        make_pairs({"hr": hr, "key": batch["key"]}, dataclasses.replace(degradation, jpeg_probability=0.0), 2, 8)
        for hr in (batch["hr"], changed)
    )
    np.testing.assert_allclose(whole["lr"].astype(int), other["lr"].astype(int), atol=1)
