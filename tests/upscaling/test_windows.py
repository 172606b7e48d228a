"""Overlapping windows against the whole image."""

import jax
import numpy as np
import pytest

from a2f_jax.errors import UserError
from a2f_jax.model import Model
from a2f_jax.models import receptive_field
from a2f_jax.models.a2f import A2F
from a2f_jax.models.receptive_field import reach
from a2f_jax.models.registry import PEERS
from a2f_jax.upscaling import windows
from a2f_jax.upscaling.plan import Plan


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """These networks see few pixels: compiling them well takes longer than running them badly."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.float32)


SIDE = 16


def test_settings_for_debugging_do_not_break_it(random_params):
    network = PEERS["srcnn"].make(2)
    params = random_params(network)
    want = Model(network, params).upscaler(tile=SIDE).upscale(noise(20, 40))
    receptive_field._reach.cache_clear()
    windows._compiled.cache_clear()
    with jax.debug_nans(True), jax.disable_jit():
        np.testing.assert_array_equal(Model(network, params).upscaler(tile=SIDE).upscale(noise(20, 40)), want)


# With zero padding; with repeated edges, on enlarged luma; with a transposed convolution that is not centered.
@pytest.mark.parametrize(("name", "scale"), [("srmdnf", 3), ("srcnn", 2), ("idn", 4)])
def test_tiles_equal_the_whole_image(name, scale, random_params, monkeypatch):
    network = PEERS[name].make(scale)
    params, seen = random_params(network), reach(network)
    image = noise(2 * seen + 37, 7)  # not a multiple of the tiles
    for turned in (image, image.swapaxes(0, 1)):
        want = Model(network, params).upscaler(tile=512).upscale(turned)
        np.testing.assert_allclose(Model(network, params).upscaler(tile=SIDE).upscale(turned), want, rtol=0, atol=1e-3)

    # Random weights let the influence of distant pixels fade. That of a NaN does not: wherever one lies, as many pixels
    # of the result are NaN as in the whole image. With windows that extend one pixel less, some are missing.
    monkeypatch.setattr(windows, "require_finite", lambda _: None)

    def differs(row, overlap):
        monkeypatch.setattr(windows, "reach", lambda _: overlap)
        damaged = image.copy()
        damaged[row] = np.nan
        parts = windows.Windows(network, params, jax.devices()[0])
        results = [
            np.concatenate(list(parts.strips(damaged, Plan(side), "float32", lambda _: None))) for side in (SIDE, 512)
        ]
        return (np.isnan(results[0]) != np.isnan(results[1])).any()

    def beside_the_windows(overlap):
        return [SIDE - 1, SIDE, SIDE + 2 * overlap - 1, SIDE + 2 * overlap]

    assert not any(differs(row, seen) for row in beside_the_windows(seen))
    assert any(differs(row, seen - 1) for row in beside_the_windows(seen - 1))


@pytest.fixture(scope="module")
def finite(random_params):
    """A model that looks 6 pixels far."""
    return Model.from_params(random_params(A2F(scale=2, features=6, blocks=2, attention=False, depthwise=True)))


@pytest.mark.parametrize("shape", [(50, 70), (70, 50), (9, 200), (29, 29), (28, 28), (1, 100)])
@pytest.mark.parametrize("edge", ["zero", "reflect"])
def test_images_of_any_shape_are_covered_once(finite, shape, edge):
    image = noise(*shape)
    want = finite.upscaler(tile=512, edge=edge).upscale(image)
    upscaler, done = finite.upscaler(tile=16, edge=edge), []
    np.testing.assert_allclose(upscaler.upscale(image, progress=done.append), want, rtol=0, atol=1e-3)
    assert sum(done) == upscaler.steps(*shape, upscaler.plan(*shape))


def test_one_program_serves_all_windows_of_all_large_images(finite, compilations):
    upscaler = finite.upscaler(tile=16)
    upscaler.upscale(noise(50, 70))
    with compilations() as compiled:
        upscaler.upscale(noise(61, 90))
    assert not compiled


def test_what_does_not_fit_whole_is_computed_in_the_largest_tiles_that_fit(finite, monkeypatch):
    monkeypatch.setattr(windows, "RUNTIME", 0)
    image = noise(300, 310)
    whole = finite.upscaler().plan(300, 310).side
    least = {side: windows.Windows(finite.inference_network, finite.folded, jax.devices()[0]) for side in (64, 128)}
    needed = {side: w._needed(300, 310, side, 1 << 60) + 2 * 12 * 4 * side * 310 for side, w in least.items()}
    assert whole == 310
    tight = finite.upscaler(memory=(needed[64] + needed[128]) // 2)
    assert tight.plan(300, 310).side == 64
    np.testing.assert_allclose(tight.upscale(image), finite.upscaler().upscale(image), rtol=0, atol=1e-3)
    with pytest.raises(UserError, match=r"of memory is too little for 310×300 pixels: at least .* is needed"):
        finite.upscaler(memory=1000).plan(300, 310)


def test_a_network_that_looks_at_the_whole_image_says_why_it_cannot_be_divided(monkeypatch):
    network = PEERS["imdn"].make(2)
    monkeypatch.setattr(windows, "reach", lambda _: None)  # which the test of the receptive field finds out
    shapes = jax.eval_shape(network.init, jax.random.key(0), noise(8, 8)[None])["params"]
    model = Model(network, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes))
    assert model.upscaler(tile=16).plan(40, 40).side == 40
    with pytest.raises(UserError, match="because this network looks at all of it at once"):
        model.upscaler(memory=1000).plan(40, 40)
