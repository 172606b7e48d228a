"""The upscaler: ensembles, devices that run out of memory, accepted images."""

import gc
import pathlib
import sys

import jax
import numpy as np
import pytest

import a2f_jax
from a2f_jax.errors import UserError
from a2f_jax.model import Model
from a2f_jax.models.a2f import A2F
from a2f_jax.models.registry import PEERS
from a2f_jax.upscaling import plan, tiles, upscaler
from a2f_jax.weights import shipped_weights


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


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("edge", ["zero", "reflect"])
@pytest.mark.parametrize("size", [(40, 90), (90, 40)])
def test_images_computed_as_a_whole_equal_those_of_tiles(model, monkeypatch, size, ensemble, edge):
    image, done = _image(*size), []
    want = model.upscaler(ensemble=ensemble, edge=edge).upscale(image)
    monkeypatch.setitem(plan._LARGEST_CANVAS, "cpu", 2048)
    whole = model.upscaler(ensemble=ensemble, edge=edge)
    chosen = whole.plan(*size)
    assert chosen.canvas and chosen.canvas[0] != chosen.canvas[1]
    np.testing.assert_allclose(whole.upscale(image, progress=done.append).astype(int), want, atol=1)
    assert sum(done) == whole.steps(*size, chosen) == (8 if ensemble else 1)


@pytest.mark.parametrize("network", [A2F(scale=2, features=8, blocks=2), PEERS["srcnn"].make(2)], ids=["a2f", "srcnn"])
@pytest.mark.parametrize("tile", [None, 16])
def test_a_transfer_guard_of_the_caller_is_not_for_the_images_that_are_upscaled(random_params, network, tile):
    params, image = random_params(network), _image(20, 40)
    want = Model(network, params).upscaler(tile=tile).upscale(image)
    with jax.transfer_guard("disallow"):
        np.testing.assert_array_equal(Model(network, params).upscaler(tile=tile).upscale(image), want)
        with pytest.raises(Exception, match="Disallowed"):
            jax.numpy.sin(image)


def test_smaller_tiles_are_tried_when_memory_runs_out(model, monkeypatch, capsys):
    tried, real = [], tiles.strips

    def strips(programs, image, plan, *args):
        tried.append((plan.side, plan.place))
        if plan.side > 40:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12345 bytes.")
        return real(programs, image, plan, *args)

    monkeypatch.setattr(tiles, "strips", strips)
    image = _image(100, 21)
    want = model.upscaler(tile=32).upscale(image)
    tried.clear()
    np.testing.assert_array_equal(model.upscaler(tile=128).upscale(image), want)
    assert tried == [(128, "device"), (64, "host"), (32, "host")]
    assert "trying again with tiles of 32×32 pixels" in capsys.readouterr().err


def test_tiles_are_tried_when_memory_runs_out_for_the_whole_image(model, monkeypatch, capsys):
    real, want = tiles._whole, model.upscale(_image())
    monkeypatch.setitem(plan._LARGEST_CANVAS, "cpu", 2048)
    whole = []

    def exhausted(*args):
        whole.append(real(*args))
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12345 bytes.")

    monkeypatch.setattr(tiles, "_whole", exhausted)
    np.testing.assert_array_equal(model.upscale(_image()), want)
    assert "trying again with tiles of 64×64 pixels" in capsys.readouterr().err
    np.testing.assert_allclose(whole[0].astype(int), want, atol=1)


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


class _Recorder:
    """A network that returns its input, and records how it is computed."""

    scale, dtype = 1, np.dtype(np.float32)

    def __init__(self):
        self.precisions = []

    def init(self, key, lr):
        """Returns its parameter."""
        return {"params": {"bias": jax.numpy.float32(1)}}

    def apply(self, variables, lr):
        """Records the precision of matrix products."""
        self.precisions.append(jax.config.jax_default_matmul_precision)
        return lr + variables["params"]["bias"]


def test_whole_images_are_computed_in_full_precision_on_the_given_device():
    network, device, image = _Recorder(), jax.local_devices()[-1], _image()
    result = upscaler.Upscaler(network, {"bias": np.float32(1)}, device=device).upscale(image.astype(np.float32))
    np.testing.assert_array_equal(result, image + np.float32(1))
    assert network.precisions == ["highest"]


def test_tile_sizes_are_rounded_up(model):
    np.testing.assert_allclose(model.upscaler(tile=9).upscale(_image()), model.upscale(_image()), atol=1)


@pytest.mark.parametrize("form", [{}, {"attention": False, "depthwise": True}], ids=["tiles", "whole image"])
def test_reflected_edges_are_upscaled_and_cut_off(random_params, form):
    model = Model.from_params(random_params(A2F(scale=2, features=6, blocks=2, **form)))
    image, margin = _image().astype(np.float32), upscaler.REFLECTED
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), "symmetric")
    want = np.asarray(model(padded[None])[0])[2 * margin : -2 * margin, 2 * margin : -2 * margin]
    have = model.upscaler(tile=16, edge="reflect").upscale(image)
    np.testing.assert_allclose(have, want, rtol=0, atol=1e-3)


def test_reflected_edges_work_with_ensembles_and_tiny_images(model):
    image = _image(1, 3).astype(np.float32)
    reflecting = model.upscaler(tile=16, edge="reflect")
    turned = [np.rot90(reflecting.upscale(np.rot90(i, k)), -k) for k in range(4) for i in (image, image[:, ::-1])]
    want = np.mean([t if i % 2 == 0 else t[:, ::-1] for i, t in enumerate(turned)], 0)
    have = model.upscaler(tile=16, edge="reflect", ensemble=True).upscale(image)
    np.testing.assert_allclose(have, want, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", sorted(shipped_weights()))
def test_the_shipped_weights_keep_the_level_of_flat_areas(name):
    upscaler = a2f_jax.load(name).upscaler()
    for level in (0, 128, 255):
        sr = upscaler.upscale(np.full((64, 64, 3), level, np.float32))
        inside = sr[len(sr) // 2 - 8 :, sr.shape[1] // 2 - 8 :][:16, :16]
        assert np.abs(np.clip(inside, 0, 255) - level).max() < 0.5


def test_zero_padding_shows_next_to_saturated_borders_and_reflection_does_not():
    """The error of the published design: zero padding looks like the mean color of DIV2K."""
    model = a2f_jax.load("a2f-sd", 3)
    green = np.zeros((40, 40, 3), np.float32)
    green[..., 1] = 255
    padded, reflected = (np.abs(model.upscaler(edge=edge).upscale(green) - green[0, 0]) for edge in ("zero", "reflect"))
    # How much depends on the weights.
    assert padded.max() > 5
    assert padded[54:66, 54:66].max() < 2
    assert reflected.max() < 2


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("edge", ["zero", "reflect"])
def test_steps_are_the_total_of_the_progress(model, ensemble, edge):
    upscaler, done = model.upscaler(tile=16, ensemble=ensemble, edge=edge), []
    upscaler.upscale(_image(18, 40), progress=done.append)
    assert sum(done) == upscaler.steps(18, 40, upscaler.plan(18, 40))


def test_the_total_of_the_progress_stays_the_same_when_smaller_tiles_are_tried(model, monkeypatch):
    real, done = tiles.strips, []

    def strips(programs, image, plan, depth, progress, margin):
        for strip in real(programs, image, plan, depth, progress, margin):
            if plan.side > 40:  # after most of the work
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12345 bytes.")
            yield strip

    monkeypatch.setattr(tiles, "strips", strips)
    upscaler = model.upscaler(tile=64)
    upscaler.upscale(_image(90, 120), progress=done.append)
    assert sum(done) == upscaler.steps(90, 120, upscaler.plan(90, 120))
    assert min(done) == 0  # called for every tile, even if there is nothing to add


def test_the_dtype_of_the_result_can_be_chosen(model):
    upscaler = model.upscaler(tile=16)
    exact = upscaler.upscale(_image().astype(np.float32))
    for dtype, levels in ((np.uint8, 255), (np.uint16, 65535)):
        result = np.concatenate(list(upscaler.strips(_image(), dtype=dtype)))
        assert result.dtype == dtype
        np.testing.assert_allclose(result, np.clip(exact * (levels / 255), 0, levels), atol=0.51)
    np.testing.assert_array_equal(np.concatenate(list(upscaler.strips(_image(), dtype=np.float32))), exact)


@pytest.mark.parametrize("form", [{}, {"attention": False, "depthwise": True}], ids=["tiles", "whole image"])
@pytest.mark.parametrize("layer", ["head", "tail"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_result_that_is_not_finite_is_an_error(random_params, form, layer, value, dtype):
    params = random_params(A2F(scale=2, features=6, blocks=2, **form))
    params[layer]["bias"] = np.full_like(params[layer]["bias"], value)
    with pytest.raises(UserError, match=r"not finite \(NaN or infinity\), most likely because the weights are damaged"):
        Model.from_params(params).upscaler(tile=16).upscale(_image().astype(dtype))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((9, 9, 3), np.nan, np.float32), "the image contains NaN or infinity"),
        (np.full((9, 9, 3), -np.inf, np.float32), "the image contains NaN or infinity"),
        (np.zeros((0, 9, 3), np.uint8), "at least one pixel"),
        (np.zeros((9, 9), np.uint8), r"expected uint8, uint16 or float32 \[H, W, 3\], got uint8 \[9, 9\]"),
        (np.zeros((9, 9, 3), np.int64), "got int64"),
    ],
)
def test_other_images_are_refused(model, image, message):
    with pytest.raises(ValueError, match=message):
        model.upscaler(tile=16).upscale(image)


def test_unknown_edges_are_refused(model):
    with pytest.raises(ValueError, match="edge is 'wrap', but must be one of zero, reflect"):
        model.upscaler(edge="wrap")


@pytest.mark.parametrize("name", ["tile", "concurrent"])
@pytest.mark.parametrize("value", [0, -8, 2.5])
def test_counts_that_are_no_whole_numbers_above_0_are_refused(model, name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}, but must be a whole number of at least 1"):
        model.upscaler(**{name: value})


def test_sizes_may_be_floats_that_are_whole_and_other_values_are_named(model):
    upscaler = model.upscaler(memory=8e8, disk=1e9, tile=16.0, concurrent=1.0)
    assert upscaler.upscale(_image()).shape == (36, 42, 3)
    with pytest.raises(UserError, match=r"95\.4 MB of memory is too little"):
        model.upscaler(memory=1e8).upscale(_image())
    for name, value in (
        ("memory", "2GB"),
        ("disk", -1),
        ("tile", "16"),
        ("memory", float("nan")),
        ("disk", float("inf")),
    ):
        with pytest.raises(ValueError, match=f"{name} is {value!r}, but must be a whole number of at least [01]"):
            model.upscaler(**{name: value})


def test_another_dtype_of_the_result_is_refused_before_the_work(model):
    with pytest.raises(ValueError, match="dtype is float64, but must be uint8, uint16 or float32"):
        next(model.upscaler().strips(_image(), dtype=np.float64, progress=pytest.fail))


def test_settings_of_numpy_and_jax_that_find_mistakes_do_not_break_it(model):
    want = model.upscaler(tile=16).upscale(_image())
    with np.errstate(all="raise"), jax.debug_nans(True):
        np.testing.assert_array_equal(model.upscaler(tile=16).upscale(_image()), want)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the memory mappings of a process in a file")
def test_programs_for_sizes_that_are_no_longer_needed_are_freed(random_params):
    # Linux ends a process with 65,530 memory mappings.
    network = PEERS["srcnn"].make(2)
    model = Model(network, random_params(network))

    def mappings():
        gc.collect()
        return len(pathlib.Path("/proc/self/maps").read_text().splitlines())

    for width in range(32, 44):
        model.upscale(_image(32, width))
    before = mappings()
    for width in range(44, 56):
        model.upscale(_image(32, width))
    assert mappings() < before + 100  # each program that is kept has dozens


def test_networks_computed_whole_are_compiled_once_for_all_their_weights(random_params, compilations):
    network = A2F(scale=2, features=4, blocks=2, attention=False, depthwise=True)
    Model.from_params(random_params(network)).upscale(_image())
    with compilations() as compiled:
        Model.from_params(random_params(network, seed=1)).upscale(_image())  # as in every validation of a run
    assert not compiled
