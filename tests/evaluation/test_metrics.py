import math

import jax.numpy as jnp
import numpy as np
import pytest
import skimage.color

from a2f_jax.evaluation.metrics import luma, psnr_y, ssim_y


@pytest.fixture(scope="module")
def truth():
    coarse = np.random.default_rng(0).integers(0, 256, (8, 11, 3))
    return np.kron(coarse, np.ones((6, 6, 1))).astype(np.uint8)


@pytest.fixture(scope="module")
def noisy(truth):
    noise = np.random.default_rng(1).normal(0, 12, truth.shape)
    return np.clip(np.round(truth + noise), 0, 255).astype(np.uint8)


def test_luma_of_the_primaries_matches_bt601():
    colors = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    np.testing.assert_allclose(luma(colors), [[16, 235, 81.481, 144.553, 40.966]], rtol=1e-12)


def test_luma_agrees_with_skimage(noisy):
    np.testing.assert_allclose(luma(noisy), skimage.color.rgb2ycbcr(noisy)[..., 0], rtol=1e-12)


def test_psnr_matches_its_formula_on_luma_without_the_border(truth, noisy):
    error = (luma(noisy) - luma(truth))[3:-3, 3:-3]
    assert psnr_y(noisy, truth, 3) == pytest.approx(20 * math.log10(255 / np.sqrt(np.mean(error**2))))


def test_ssim_matches_its_formula(truth, noisy):
    x, y = (luma(image)[4:-4, 4:-4] for image in (noisy, truth))
    profile = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(profile, profile) / profile.sum() ** 2

    def mean(values):
        return np.einsum("ijkl,kl->ij", np.lib.stride_tricks.sliding_window_view(values, (11, 11)), window)

    mx, my = mean(x), mean(y)
    vx, vy, covariance = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    ssim = (2 * mx * my + c1) * (2 * covariance + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert ssim_y(noisy, truth, 4) == pytest.approx(ssim.mean(), abs=1e-10)


def test_only_the_border_is_ignored(truth):
    spoilt = truth.copy()
    spoilt[:2] = spoilt[-2:] = spoilt[:, :2] = spoilt[:, -2:] = 0
    assert psnr_y(spoilt, truth, 2) == math.inf
    assert ssim_y(spoilt, truth, 2) == 1
    assert psnr_y(spoilt, truth, 1) < 40
    assert ssim_y(spoilt, truth, 1) < 1


@pytest.mark.parametrize("metric", [psnr_y, ssim_y])
def test_wrong_shapes_dtypes_and_sizes_are_errors(metric, truth):
    with pytest.raises(ValueError, match="different shapes"):
        metric(truth[:-1], truth, 0)
    with pytest.raises(ValueError, match="expected uint8"):
        metric(truth / 255, truth / 255, 0)
    with pytest.raises(ValueError, match="expected uint8"):
        metric(truth[None], truth[None], 0)
    with pytest.raises(ValueError, match="20×16 is too small"):
        metric(truth[:16, :20], truth[:16, :20], 3)
    assert metric(truth[:17, :20], truth[:17, :20], 3) >= 1


@pytest.mark.parametrize("metric", [psnr_y, ssim_y])
def test_a_negative_border_is_refused(metric, truth):
    with pytest.raises(ValueError, match="shave is -1, but must be at least 0"):
        metric(truth, truth, -1)


@pytest.mark.parametrize("metric", [psnr_y, ssim_y])
def test_jax_arrays_are_measured_in_float64_as_well(metric, truth, noisy):
    assert metric(jnp.asarray(noisy), jnp.asarray(truth), 4) == metric(noisy, truth, 4)
