"""Weights in `.npz` files."""

import numpy as np
import pytest

from a2f_jax.errors import UserError
from a2f_jax.weights import read_weights


def test_a_damaged_archive_is_refused_wherever_the_damage_is(tmp_path):
    file = tmp_path / "w.npz"
    np.savez_compressed(file, **{"encoder.weight": np.random.default_rng(0).normal(size=(8, 8)).round(1)})
    content = file.read_bytes()
    for i in range(len(content)):
        file.write_bytes(content[:i] + bytes([content[i] ^ 0xFF]) + content[i + 1 :])
        with pytest.raises((UserError, ValueError)):  # the latter if what is read are not the tensors of a network
            read_weights(file)


def test_a_single_array_is_not_an_archive(tmp_path):
    with (tmp_path / "w.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError, match=r"is not an .npz file or is damaged: it contains a single array"):
        read_weights(tmp_path / "w.npz")
