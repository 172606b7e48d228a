"""A tiny dataset and a tiny run that the tests of training share."""

import pathlib

import numpy as np
import pytest
from ml_collections import ConfigDict

from a2f_jax.configs import a2f
from a2f_jax.data import prepare, write_image


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> pathlib.Path:
    """Holds the prepared dataset `tiny`: smooth random pictures, four to train on and two held out."""
    source, target = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for i in range(6):
        coarse = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
        write_image(source / f"{i}.png", coarse.repeat(8, 0).repeat(8, 1))
    prepare("tiny", scale=2, data_dir=target, source=source, validation=2)
    return target


@pytest.fixture
def config(data_dir) -> ConfigDict:
    """Settings of a run that takes seconds."""
    config = a2f.get_config("sd_x2")
    config.model.features, config.model.blocks = 8, 2
    config.data.name, config.data.dir, config.data.patch_size = "tiny", str(data_dir), 12
    config.batch_size = 8
    config.steps = 8
    config.log_every, config.checkpoint_every, config.validate_every = 2, 4, 4
    return config
