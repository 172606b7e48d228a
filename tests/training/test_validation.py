import math

import jax
import numpy as np
import pytest

from a2f_jax.evaluation.metrics import psnr_y
from a2f_jax.model import Model
from a2f_jax.models.a2f import A2F
from a2f_jax.training.validation import validate


def test_an_image_without_an_error_counts_as_100_db_and_does_not_hide_the_others():
    network = A2F(scale=2, features=4, blocks=1)
    lr = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    model = Model(network, network.init(jax.random.key(0), lr[None])["params"])
    sr = model.upscale(lr)
    hr = 255 - sr
    (psnr, ssim, count), _ = validate(model, [(lr, sr), (lr, hr)])
    assert math.isinf(psnr_y(sr, sr, 2))
    assert psnr == pytest.approx(100 + psnr_y(sr, hr, 2))
    assert count == 2 and math.isfinite(ssim)
