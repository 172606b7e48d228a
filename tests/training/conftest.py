"""A tiny dataset, config and network for the tests of training."""

import pathlib
import runpy

import numpy as np
import pytest

from a2f_jax.data import prepare
from a2f_jax.images import write_rgb
from a2f_jax.models.a2f import A2F

TINY = pathlib.Path(__file__).with_name("tiny.py")


@pytest.fixture(scope="module", autouse=True)
def without_optimizations(quick_compilation):
    """All tests in this folder compile tiny networks."""


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A folder with the prepared dataset `tiny`: coarse random images, four for training and two for validation."""
    source, target = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for i in range(6):
        coarse = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
        write_rgb(source / f"{i}.png", coarse.repeat(8, 0).repeat(8, 1))
    for scale in (2, 3, 4):
        prepare("tiny", scale=scale, data_dir=target, source=source, validation=2, min_size=1)
    return target


@pytest.fixture(scope="session")
def photo_dir(tmp_path_factory):
    """A folder with the prepared dataset `photos` ×2: coarse random images of 80×96 pixels, three of them held out."""
    source, target = tmp_path_factory.mktemp("larger"), tmp_path_factory.mktemp("photo_data")
    rng = np.random.default_rng(0)
    for i in range(6):
        coarse = rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)
        write_rgb(source / f"{i}.png", coarse.repeat(8, 0).repeat(8, 1))
    prepare("photos", scale=2, data_dir=target, source=source, validation=3, min_size=1)
    return target


@pytest.fixture
def config(data_dir):
    return runpy.run_path(str(TINY))["get_config"](str(data_dir))


@pytest.fixture(scope="session")
def network():
    return A2F(scale=2, features=8, blocks=2)


@pytest.fixture(scope="session")
def batches():
    """Three batches of eight, `{"lr": uint8 [3, 8, 6, 6, 3], "hr": uint8 [3, 8, 12, 12, 3]}`."""
    rng = np.random.default_rng(0)
    return {
        "lr": rng.integers(0, 256, (3, 8, 6, 6, 3), dtype=np.uint8),
        "hr": rng.integers(0, 256, (3, 8, 12, 12, 3), dtype=np.uint8),
    }
