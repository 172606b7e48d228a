"""Tiles give the same result as the whole image, at any size and wherever the states are stored."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2f_jax.errors import UserError
from a2f_jax.model import Model
from a2f_jax.models.a2f import A2F
from a2f_jax.upscaling import tiles
from a2f_jax.upscaling.plan import Plan
from a2f_jax.upscaling.programs import programs_of
from a2f_jax.upscaling.tiles import strips, tile_count


def _programs(model):
    return programs_of(model.inference_network, model.folded, jax.devices()[0])


@pytest.fixture(scope="module")
def programs(model):
    return _programs(model)


def _image(height, width, dtype=np.uint8):
    return np.random.default_rng(height * width).integers(0, np.iinfo(dtype).max + 1, (height, width, 3), dtype)


def _whole(model, image):
    return np.asarray(model(image[None].astype(np.float32))[0])


def _tiled(programs, image, plan, *args, **options):
    return np.concatenate(list(strips(programs, image, plan, *args, **options)))


# A tile larger than the image, exact multiples, one pixel more, odd sizes, a single row or column of tiles.
@pytest.mark.parametrize("size", [(8, 8), (8, 47), (16, 32), (17, 33), (41, 9), (31, 29)])
@pytest.mark.parametrize("place", ["device", "host", "disk"])
def test_tiles_give_the_whole_image(model, programs, size, place):
    image = _image(*size)
    want = _whole(model, image)
    np.testing.assert_allclose(_tiled(programs, image, Plan(16, place)), want, rtol=0, atol=1e-3)


# The last two have more tiles than are added at once, and more than that twice over.
@pytest.mark.parametrize(
    ("size", "side"), [((8, 8), 16), ((17, 33), 16), ((31, 29), 16), ((65, 70), 16), ((133, 135), 8)]
)
def test_programs_that_are_queued_give_the_whole_image(model, programs, size, side):
    image, done = _image(*size), []
    have = _tiled(programs, image, Plan(side), "float32", done.append, ahead=True)  # as on an accelerator
    np.testing.assert_allclose(have, _whole(model, image), rtol=0, atol=1e-3)
    assert sum(done) == tile_count(programs, *size, Plan(side))


def test_queued_programs_give_the_same_result_in_other_forms(model, programs):
    image = _image(31, 40)
    half = _programs(model.with_dtype(jnp.bfloat16))
    for chosen, arguments in ((programs, ("uint8",)), (programs, ("float32", lambda _: None, 3)), (half, ("uint16",))):
        waited, queued = (_tiled(chosen, image, Plan(16), *arguments, ahead=ahead) for ahead in (False, True))
        assert queued.dtype == waited.dtype
        # Means in float32 instead of float64 change what is rounded.
        np.testing.assert_allclose(queued.astype(float), waited, rtol=0, atol=1e-3 if queued.dtype == "float32" else 1)


def test_damaged_weights_are_told_before_all_blocks_are_computed(model, monkeypatch):
    params = jax.tree.map(np.array, model.params)
    params["block_01"]["expand"]["bias"][:] = np.nan
    done = []
    with pytest.raises(UserError, match="is not finite"):
        _tiled(_programs(Model.from_params(params)), _image(40, 40), Plan(16), "float32", done.append, ahead=True)
    assert sum(done) <= 9 * 5  # the head, three blocks, and the one that is queued meanwhile


def test_only_accelerators_that_hold_the_states_queue_programs(programs, monkeypatch):
    class Accelerator:
        platform = "gpu"

    image, waited = _image(8, 8), []
    monkeypatch.setattr(tiles._HostMeans, "add", lambda self, sums: waited.append(list(sums)))
    monkeypatch.setattr(tiles._HostMeans, "weights", lambda self, index: pytest.fail("waited"))
    monkeypatch.setattr(jax, "device_put", lambda x, _: jnp.asarray(x))
    on_gpu = dataclasses.replace(programs, device=Accelerator())
    assert _tiled(on_gpu, image, Plan(16)).shape == (8 * programs.network.scale, 8 * programs.network.scale, 3)
    assert not waited
    for chosen, place in ((programs, "device"), (on_gpu, "host")):
        with pytest.raises(pytest.fail.Exception, match="waited"):
            _tiled(chosen, image, Plan(16, place))


@pytest.mark.parametrize("size", [(8, 8), (31, 29), (42, 58)])
@pytest.mark.parametrize("margin", [0, 3])
@pytest.mark.parametrize(("depth", "atol"), [("float32", 1e-3), ("uint8", 1), ("uint16", 1)])
def test_a_canvas_gives_what_tiles_give(programs, size, margin, depth, atol):
    done, image = [], _image(*size, np.uint16 if depth == "uint16" else np.uint8)
    want = _tiled(programs, image, Plan(16), depth, margin=margin)
    plan = Plan(16, canvas=(48, 64))
    have = _tiled(programs, image, plan, depth, done.append, margin=margin)
    assert have.dtype == want.dtype
    np.testing.assert_allclose(have.astype(float), want, rtol=0, atol=atol)
    assert sum(done) == tile_count(programs, *size, plan) == 1


def test_damaged_weights_are_told_with_a_canvas(model):
    params = jax.tree.map(np.array, model.params)
    params["block_01"]["expand"]["bias"][:] = np.nan
    with pytest.raises(UserError, match="is not finite"):
        _tiled(_programs(Model.from_params(params)), _image(20, 20), Plan(16, canvas=(32, 32)))


@pytest.mark.parametrize("options", [{"ahead": False}, {"ahead": True}, {"canvas": (32, 32)}], ids=str)
@pytest.mark.parametrize(
    "variation",
    [{"auxiliary": False}, {"attention": False}, {"head_kernel": 1}, {"head_kernel": 5}, {"head_kernel": 7}],
    ids=str,
)
def test_every_variation_of_the_network_is_tiled_exactly(random_params, variation, options):
    model = Model.from_params(random_params(A2F(scale=3, features=8, blocks=2, **variation)))
    image, ahead = _image(19, 21), options.get("ahead")
    have = _tiled(_programs(model), image, Plan(16, canvas=options.get("canvas")), ahead=ahead)
    np.testing.assert_allclose(have, _whole(model, image), rtol=0, atol=1e-3)


def test_attention_sees_the_whole_image(model, programs):
    """Why tiles cannot be upscaled independently: a change in one corner changes the opposite one slightly."""
    image = _image(40, 40)
    other = image.copy()
    other[:16, :16] = 255
    far = (slice(64, None), slice(64, None))
    change = _tiled(programs, other, Plan(16))[far] - _tiled(programs, image, Plan(16))[far]
    assert np.abs(change).max() > 0.01
    np.testing.assert_allclose(change, (_whole(model, other) - _whole(model, image))[far], rtol=0, atol=2e-3)


def test_bfloat16_is_as_precise_in_tiles_as_on_the_whole_image(model):
    image = _image(20, 37)
    half = model.with_dtype(jnp.bfloat16)
    have = _tiled(_programs(half), image, Plan(16))
    error = np.sqrt(np.mean((have - _whole(model, image)) ** 2))
    assert 0 < error < 2 * np.sqrt(np.mean((_whole(half, image) - _whole(model, image)) ** 2))


def test_the_skip_connection_is_as_precise_in_bfloat16_tiles(model):
    params = dict(model.params)
    params["tail"] = {**params["tail"], "g": np.zeros_like(params["tail"]["g"])}
    model, image = Model.from_params(params), _image(20, 37)
    exact, half = (_tiled(_programs(model.with_dtype(dtype)), image, Plan(16)) for dtype in (jnp.float32, jnp.bfloat16))
    # The bias of the tail is added in float32 as well.
    np.testing.assert_allclose(half, exact, rtol=0, atol=1e-3)


def test_results_are_rounded_and_clipped(programs):
    image = _image(20, 18)
    exact = _tiled(programs, image, Plan(16))
    assert exact.min() < 0
    assert exact.max() > 255
    for depth, levels in (("uint8", 255), ("uint16", 65535)):
        result = _tiled(programs, image, Plan(16), depth)
        assert result.dtype == depth
        np.testing.assert_allclose(result, np.clip(exact * (levels / 255), 0, levels), rtol=0, atol=0.51)


def test_one_program_serves_all_images_of_a_canvas(random_params, compilations):
    programs = _programs(Model.from_params(random_params(A2F(scale=2, features=6, blocks=1))))
    run = functools.partial(_tiled, programs, plan=Plan(16, canvas=(32, 48)))
    with compilations() as first:
        run(_image(20, 40))
    with compilations() as later:
        run(_image(32, 48))
        run(_image(7, 1))
    assert first and not later


def test_16_bit_input_has_no_bottleneck_of_8_bits(programs):
    deep = _image(20, 18, np.uint16)
    want = _tiled(programs, (deep / 257).astype(np.float32), Plan(16))
    np.testing.assert_allclose(_tiled(programs, deep, Plan(16)), want, rtol=0, atol=1e-3)


def test_progress_counts_every_tile(programs):
    done = []
    list(strips(programs, _image(33, 20), Plan(16), progress=done.append))
    assert sum(done) == tile_count(programs, 33, 20, Plan(16)) == 6 * 7


@pytest.mark.parametrize("ahead", [False, True])
def test_compilations_do_not_depend_on_the_size(random_params, compilations, ahead):
    # Numbers of features that no other test has: its programs could be in memory, or in the cache that workers share.
    model = Model.from_params(random_params(A2F(scale=2, features=7 if ahead else 5, blocks=5)))
    programs = _programs(model)
    run = functools.partial(_tiled, programs, plan=Plan(16), ahead=ahead)
    with compilations() as first:
        run(_image(20, 20))
    # Head, residual branch, mixing of up to 4 and up to 8 states, surrounding, tail, and a few single operations; and
    # the weights for mixing and the sum over tiles.
    assert 6 + 3 * ahead <= len(first) <= 10 + 3 * ahead
    with compilations() as later:
        for size in range(8, 48, 3):
            run(_image(size, 55 - size))
    assert not later


def test_no_file_of_states_is_left(programs, tmp_path):
    _tiled(programs, _image(20, 20), Plan(16, "disk", tmp_path))
    assert not list(tmp_path.iterdir())


def test_depthwise_projections_cannot_be_tiled(random_params):
    model = Model.from_params(random_params(A2F(scale=2, features=4, blocks=2, attention=False, depthwise=True)))
    with pytest.raises(ValueError, match="depthwise"):
        _programs(model)
