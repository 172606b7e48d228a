"""Weights of a tiny network."""

import pytest

from a2f_jax.model import Model, save
from a2f_jax.models.a2f import A2F


@pytest.fixture(scope="package")
def weights(tmp_path_factory, random_params):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save(Model.from_params(random_params(A2F(scale=2, features=8, blocks=1))), path)
    return str(path)
