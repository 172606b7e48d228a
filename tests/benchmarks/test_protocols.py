"""The protocols of other papers."""

import importlib
import pathlib

import numpy as np
import pytest

from a2f_jax.data import matlab_bicubic
from a2f_jax.evaluation.metrics import psnr_y, ssim_y
from a2f_jax.model import load


@pytest.fixture
def protocols(monkeypatch):
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("protocols")


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    hr = rng.integers(0, 256, (40, 44, 3), dtype=np.uint8)
    return hr + rng.normal(0, 5, hr.shape), hr


def test_the_first_protocol_is_that_of_the_package(protocols, images):
    sr, hr = images
    byte = np.clip(np.rint(sr), 0, 255).astype(np.uint8)
    found = protocols.score(protocols.PROTOCOLS["this package"], sr, hr, 2)
    assert found == pytest.approx((psnr_y(byte, hr, 2), ssim_y(byte, hr, 2)))


def test_a_gray_image_gains_the_ratio_of_the_ranges(protocols):
    hr = np.random.default_rng(0).integers(20, 230, (40, 44, 1), dtype=np.uint8).repeat(3, -1)
    names = ("this package", "gray images as 0..255")
    narrow, full = (protocols.score(protocols.PROTOCOLS[name], hr + 4.0, hr, 2)[0] for name in names)
    assert narrow - full == pytest.approx(20 * np.log10(255 / 219))


def test_an_lr_image_with_fractions_is_matlabs_before_rounding(protocols):
    # MATLAB rounds after either axis: the first half a level, spread by a kernel of absolute sum below 1.3.
    hr = np.random.default_rng(0).integers(64, 192, (24, 36, 3), dtype=np.uint8)
    assert np.abs(protocols.reduced(hr, 4) - matlab_bicubic(hr, 1 / 4)).max() < 0.5 * 1.3 + 0.5
    assert protocols.reduced(hr, 4).shape == (6, 9, 3)


def test_falsr_reaches_the_slides_figure_on_set5_by_its_own_protocol_only(protocols, shared):
    model = load(shared / "checkpoints/peers/falsr-b_x2.npz")
    found = protocols.measure(model, "set5", str(shared / "data/SelfExSR"))
    psnr, ssim = found["RGB truncated, Y rounded (CARN, FALSR)"]
    assert (round(psnr, 2), round(ssim, 4)) == (37.61, 0.9585)
    assert round(found["this package"][0], 2) == 37.68
