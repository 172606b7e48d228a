"""The upscaler: ensembles, devices that run out of memory, accepted images."""

import jax
import numpy as np
import pytest

from a2f_jax.model import Model
from a2f_jax.models.a2f import A2F
from a2f_jax.upscaling import tiles


def _image(height=18, width=21):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_the_ensemble_is_the_mean_over_8_transforms(model):
    image = _image().astype(np.float32)
    results = []
    for k in range(4):
        for mirror in (False, True):
            turned = np.rot90(image, k)
            sr = np.asarray(model((turned[:, ::-1] if mirror else turned)[None])[0])
            results.append(np.rot90(sr[:, ::-1] if mirror else sr, -k))
    have = model.upscaler(tile=16, ensemble=True).upscale(image)
    np.testing.assert_allclose(have, np.mean(results, 0), rtol=0, atol=1e-3)


def test_smaller_tiles_are_tried_when_memory_runs_out(model, monkeypatch, capsys):
    tried, real = [], tiles.strips

    def strips(programs, image, plan, *args):
        tried.append((plan.side, plan.place))
        if plan.side > 40:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12345 bytes.")
        return real(programs, image, plan, *args)

    monkeypatch.setattr(tiles, "strips", strips)
    want = model.upscale(_image())
    tried.clear()
    np.testing.assert_array_equal(model.upscaler(tile=128).upscale(_image()), want)
    assert tried == [(128, "device"), (64, "host"), (32, "host")]
    assert "trying again with tiles of 32×32 pixels" in capsys.readouterr().err


def test_other_device_errors_are_raised(model, monkeypatch):
    def strips(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: the device is gone")

    monkeypatch.setattr(tiles, "strips", strips)
    with pytest.raises(jax.errors.JaxRuntimeError, match="gone"):
        model.upscaler().upscale(_image())


def test_networks_with_depthwise_projections_upscale_the_whole_image(random_params):
    model = Model.from_params(random_params(A2F(scale=2, features=4, blocks=2, attention=False, depthwise=True)))
    image = _image()
    want = np.clip(model(image[None].astype(np.float32))[0], 0, 255)
    np.testing.assert_allclose(model.upscale(image), want, atol=0.51)


def test_tile_sizes_are_rounded_up(model):
    np.testing.assert_allclose(model.upscaler(tile=9).upscale(_image()), model.upscale(_image()), atol=1)
