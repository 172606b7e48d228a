"""`Model`, and the folding of weight normalization."""

import copy
import dataclasses
import os
import pathlib
import pickle
import re
from collections.abc import Sequence
from typing import Any

import flax.core
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import a2f_jax
from a2f_jax.errors import UserError
from a2f_jax.model import Model, average, fold_weight_norm, infer_network, load, load_labeled, variant_of
from a2f_jax.models.a2f import A2F, build, check_shapes
from a2f_jax.models.awsrn import AWSRN
from a2f_jax.models.edsr import EDSR
from a2f_jax.models.layers import pixel_shuffle
from a2f_jax.models.registry import PEERS


@pytest.fixture(scope="module")
def model(random_params):
    params = random_params(A2F(scale=3, features=16, blocks=2))
    return Model.from_params(params)


@pytest.fixture(scope="module")
def lr():
    return np.random.default_rng(1).integers(0, 256, (1, 9, 10, 3)).astype(np.float32)


def test_folding_changes_the_parameters_but_not_the_result(model, lr):
    folded = fold_weight_norm(model.params)
    assert set(folded["head"]) == {"kernel", "bias"}
    trained = model.network.apply({"params": model.params}, lr)
    np.testing.assert_allclose(model.inference_network.apply({"params": folded}, lr), trained, atol=1e-3)


def test_other_weight_normalized_networks_are_folded_as_well(random_params, lr):
    network = AWSRN(scale=2, features=8, units=2, blocks=1)
    awsrn = Model(network, random_params(network))
    assert "v" not in awsrn.folded["block0"]["unit1"]["expand"]
    trained = network.apply({"params": awsrn.params}, lr)
    np.testing.assert_allclose(awsrn(lr), trained, atol=1e-3)


def test_calling_a_model_does_not_fold_its_weights_again(model, lr):
    jaxpr = str(jax.make_jaxpr(model)(lr))
    assert "sqrt" not in jaxpr
    assert "sqrt" in str(jax.make_jaxpr(lambda x: model.network.apply({"params": model.params}, x))(lr))


def test_calling_is_pure_and_works_inside_jit_and_vmap(model, lr):
    fresh = Model(model.network, model.params)
    want = model(lr)
    np.testing.assert_allclose(jax.jit(fresh)(lr), want, atol=1e-3)
    np.testing.assert_allclose(fresh(lr), want, atol=1e-3)  # no tracer is left behind
    np.testing.assert_allclose(jax.vmap(lambda x: model(x[None])[0])(lr), want, atol=1e-3)


def test_a_called_model_depends_on_no_device_and_has_full_precision(model, lr):
    wide = Model.from_params(A2F(scale=2, features=32, blocks=1).init(jax.random.key(0), lr)["params"])
    program = str(jax.make_jaxpr(wide)(lr))
    products = program.count("conv_general_dilated[") + program.count("dot_general[")
    assert products >= 5
    assert program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == products
    assert not wide.network.winograd
    assert wide.upscaler().network.winograd  # on a CPU


def test_upscale_rounds_and_clips(model, lr):
    result = model.upscale(lr[0].astype(np.uint8))
    assert result.dtype == np.uint8
    np.testing.assert_allclose(result, np.clip(model(lr)[0], 0, 255), atol=0.501)


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8, 3), np.int32), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8)]
)
def test_upscale_refuses_images_that_are_not_rgb(model, image):
    with pytest.raises(ValueError, match=r"expected uint8, uint16 or float32 \[H, W, 3\]"):
        model.upscale(image)


def test_a_jax_array_is_upscaled_like_a_numpy_array(model, lr):
    np.testing.assert_array_equal(model.upscale(jnp.asarray(lr[0])), model.upscale(lr[0]))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_pil_image_becomes_a_pil_image_with_the_values_of_the_array(model, lr, mode):
    image = Image.fromarray(lr[0].astype(np.uint8)).convert(mode)
    image.info["dpi"] = (72, 72)
    result = model.upscale(image)
    assert (result.mode, result.size, result.info["dpi"]) == (mode, (30, 27), (72, 72))
    expected = np.asarray(model.upscale(np.asarray(image.convert("RGB"), np.float32)))
    if mode == "L":
        expected = expected.mean(-1)
    np.testing.assert_allclose(np.asarray(result), np.clip(expected, 0, 255), atol=0.51)


def test_a_transparent_pil_image_keeps_its_alpha(model, lr):
    image = Image.fromarray(lr[0].astype(np.uint8))
    opaque = image.copy()
    opaque.putalpha(255)
    assert model.upscale(opaque).getchannel("A").getextrema() == (255, 255)
    np.testing.assert_array_equal(model.upscale(opaque).convert("RGB"), model.upscale(image))
    half = image.copy()
    half.putalpha(Image.fromarray(np.repeat(np.uint8([[0] * 5 + [255] * 5]), 9, 0)))
    alpha = np.asarray(model.upscale(half).getchannel("A"))
    assert alpha.shape == (27, 30)
    assert alpha[:, :6].mean() < alpha[:, -6:].mean()


def test_an_upscaler_with_options_takes_pil_images_too(model, lr):
    image = Image.fromarray(lr[0].astype(np.uint8))
    upscaler = model.upscaler(ensemble=True)
    np.testing.assert_array_equal(upscaler.upscale(image), upscaler.upscale(np.asarray(image)))
    with pytest.raises(TypeError, match="got a file name"):
        upscaler.upscale("photo.jpg")


def test_what_is_not_an_image_is_refused_with_the_remedy(model):
    with pytest.raises(TypeError, match=r"got a file name: use PIL.Image.open\('photo.jpg'\)"):
        model.upscale("photo.jpg")
    with pytest.raises(ValueError, match=r"at least one pixel, got \[0, 8, 3\]"):
        model.upscale(np.zeros((0, 8, 3), np.uint8))
    with pytest.raises(UserError, match="4×4 pixels is too small"):
        model.upscale(Image.new("RGB", (4, 4)))
    with pytest.raises(ValueError, match=r"expected a batch \[N, H, W, 3\], got \[8, 8, 3\]"):
        model(np.zeros((8, 8, 3), np.float32))


@pytest.mark.parametrize(
    ("network", "name"),
    [
        (build("a2f-sd", 4), "a2f-sd"),
        (build("a2f-s", 2, attention=False), "a2f-s-noca"),
        (build("a2f-s", 3, auxiliary=False), "a2f-s-baseline"),
        (build("a2f-sd", 4, head_kernel=5), "a2f-sd-head5"),
        (A2F(scale=2, features=24, blocks=3), "a2f-24x3"),
    ],
)
def test_networks_are_recognized_from_their_parameters(network, name):
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    assert variant_of(network) == name
    assert infer_network(shapes) == network or not network.auxiliary
    assert variant_of(infer_network(shapes)) == name


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float64])
def test_parameters_of_other_data_types_are_converted_to_float32(model, dtype):
    params = jax.tree.map(lambda x: x.astype(dtype), model.params)
    converted = Model.from_params(params)
    assert {x.dtype for x in jax.tree.leaves(converted.params)} == {np.dtype(np.float32)}
    image = np.zeros((6, 5, 3), np.uint8)
    np.testing.assert_allclose(converted.upscale(image), model.upscale(image), atol=8)  # 8 bits of precision


def test_a_model_is_shown_in_one_line(model):
    assert "array" not in repr(model)
    assert len(repr(model)) < 400


def test_parameters_of_another_architecture_are_refused(model):
    with pytest.raises(ValueError, match="head, blocks and tail of A2F are missing"):
        infer_network({"encoder": {"kernel": np.zeros((3, 3, 3, 8))}})
    damaged = {**model.params, "tail": {**model.params["tail"], "v": np.zeros((3, 3, 5, 27))}}
    with pytest.raises(ValueError, match=r"tail.v must have shape \(3, 3, 16, 27\), not \(3, 3, 5, 27\)"):
        infer_network(damaged)


def test_folders_without_a_name_are_loaded_and_only_duplicates_are_named(model, tmp_path, monkeypatch):
    monkeypatch.setattr("a2f_jax.model.load", lambda path, scale: f"{path} {scale}")
    assert load_labeled(["."], 4) == {".": ". 4"}
    assert load_labeled(["runs/a", "a", "/"]) == {"runs/a": "runs/a None", "a": "a None", "/": "/ None"}
    with pytest.raises(UserError, match=r"the same weights are given twice: a/b$"):
        load_labeled(["a/b", "c", "a/b/"])


def test_the_average_of_models_has_the_means_of_their_parameters_and_what_their_metadata_share(model, random_params):
    about = {"data": "photos", "step": "5", "scores": "{}", "license": "MIT"}
    first = Model(model.network, model.params, about)
    second = Model(model.network, random_params(model.network, 1), {**about, "license": "Apache-2.0"}).with_dtype(
        jnp.bfloat16
    )
    found = average([first, second])
    jax.tree.map(
        lambda mean, a, b: np.testing.assert_allclose(mean, (a + b) / 2, atol=1e-7),
        found.params,
        first.params,
        second.params,
    )
    assert found.network == model.network
    assert found.metadata == {"data": "photos"}  # neither the step nor the scores are those of the average
    with pytest.raises(UserError, match="model 1 is a2f-4x1 ×3, but model 0 is a2f-16x2 ×3"):
        average([first, Model.from_params(random_params(A2F(scale=3, features=4, blocks=1)))])


def test_models_are_averaged_whatever_attributes_differ_that_parameters_do_not_show(random_params):
    network = A2F(scale=2, features=4, blocks=1, auxiliary=False)
    first, second = random_params(network), random_params(network, 1)
    rematerialized = average([Model(network, first), Model(network.clone(remat=True), second)])
    loaded = average([Model(network, first), Model.from_params(second)])
    jax.tree.map(np.testing.assert_array_equal, rematerialized.params, loaded.params)
    scaled = (EDSR(2, features=8, blocks=1, residual_scale=factor) for factor in (0.1, 1.0))
    with pytest.raises(UserError, match="average weights of one network and scale"):
        average(Model(edsr, {}) for edsr in scaled)


def test_models_to_average_may_come_from_a_generator(model, random_params):
    other = Model(model.network, random_params(model.network, 1))
    found, want = average(each for each in (model, other)), average([model, other])
    jax.tree.map(np.testing.assert_array_equal, found.params, want.params)


def test_what_a_file_cannot_hold_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="must be valid Unicode"):
        a2f_jax.save(model, tmp_path / "model.safetensors", {"source": os.fsdecode(b"\xff")})
    with pytest.raises(ValueError, match="folded weights cannot be saved"):
        a2f_jax.save(Model(model.inference_network, model.folded), tmp_path / "model.safetensors")
    own = Model(EDSR(2, features=8, blocks=1), {})
    with pytest.raises(ValueError, match="the network EDSR could not be loaded again: add it to PEERS first"):
        a2f_jax.save(own, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_what_could_not_be_loaded_again_is_not_written(model, tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(ValueError, match="the entry 'network' says which network"):
        a2f_jax.save(model, path, {"network": "my ablation"})
    with pytest.raises(ValueError, match=r"parameter block_00\.expand\.g is missing"):
        a2f_jax.save(Model(model.network, model.folded), path)
    with pytest.raises(ValueError, match="must have shape"):
        a2f_jax.save(Model(model.network.clone(scale=2), model.params), path)
    with pytest.raises(ValueError, match="parameter extra does not belong to the network"):
        a2f_jax.save(Model(model.network, {**model.params, "extra": np.zeros(1)}), path)
    assert not path.exists()
    a2f_jax.save(Model(model.network, model.params, {"network": "carn", "note": "kept"}), path)
    loaded = load(path)
    assert loaded.variant == model.variant
    assert loaded.metadata["note"] == "kept"


def test_metadata_that_were_loaded_can_be_saved_again(random_params, tmp_path):
    network = PEERS["srcnn"].make(2)
    path = tmp_path / "w.safetensors"
    a2f_jax.save(Model(network, random_params(network)), path)
    loaded = load(path)
    a2f_jax.save(loaded, path, {**loaded.metadata, "note": "new"})
    assert load(path).metadata == {**loaded.metadata, "note": "new"}


def test_frozen_parameters_are_averaged_as_well(model, random_params):
    others = random_params(model.network, seed=1)
    frozen = Model.from_params(flax.core.freeze(others))
    jax.tree.map(
        np.testing.assert_array_equal,
        average([model, frozen]).params,
        average([model, Model.from_params(others)]).params,
    )


def test_variables_in_place_of_parameters_are_refused_with_the_remedy(model):
    with pytest.raises(ValueError, match=r"variables\['params'\]"):
        Model.from_params({"params": model.params})


@pytest.mark.parametrize("device", ["cpu", 0])
def test_what_is_not_a_device_is_refused(model, device):
    with pytest.raises(TypeError, match=r"must be a JAX device, such as jax\.devices\(\)\[0\]"):
        model.upscaler(device=device)


class Wide(nn.Module):
    """A network that upscales by 3 and says 2."""

    scale: int = 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, lr):
        return jnp.repeat(jnp.repeat(lr, 3, 1), 3, 2) * self.param("gain", nn.initializers.ones, ())


def test_a_network_that_does_not_return_what_it_has_to_is_named(lr):
    with pytest.raises(TypeError, match=r"Wide has scale=2, so for .* \[1, 18, 20, 3\], but it returns float32"):
        Model(Wide(), {"gain": np.float32(1)}).upscale(lr[0])


class Normalized(nn.Module):
    """A network that normalizes its weights by Flax's own layer, and whose width is a list."""

    scale: int = 2
    dtype: Any = jnp.float32
    weight_norm: bool = True
    widths: Sequence[int] = dataclasses.field(default_factory=lambda: [12])
    smallest: int = 17

    @nn.compact
    def __call__(self, lr):
        if min(lr.shape[1:3]) < self.smallest:
            raise ValueError("too small")
        (width,) = self.widths
        conv = nn.Conv(width, (3, 3))
        return pixel_shuffle((nn.WeightNorm(conv) if self.weight_norm else conv)(lr), 2)


def test_a_network_may_normalize_its_weights_in_its_own_way_and_have_lists_and_a_smallest_image(lr):
    network, lr = Normalized(), np.tile(lr, (1, 2, 2, 1))
    variables = network.init(jax.random.key(0), lr)
    params = jax.tree.map(lambda x: 3 * x, variables["params"])
    model = Model(network, params)
    want = network.apply({"params": params}, lr)
    np.testing.assert_allclose(model(lr), want, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(model.upscale(np.float32(lr[0])), want[0], rtol=1e-5, atol=1e-3)
    check_shapes(network, params)


def test_the_same_weights_are_not_averaged_with_themselves(model, random_params):
    copied = Model.from_params(jax.tree.map(np.copy, model.params))
    other = Model(model.network, random_params(model.network, 1))
    with pytest.raises(UserError, match="model 0 and model 2 are the same weights: leave out one of them"):
        average([model, other, copied])


@pytest.mark.parametrize("given", ["a2f-sd-x4", pathlib.Path("run")])
def test_the_name_of_weights_in_place_of_a_model_is_answered_with_load(given, model, tmp_path):
    for call in (
        lambda: a2f_jax.average([model, given]),
        lambda: a2f_jax.export(given, tmp_path / "model.onnx"),
        lambda: a2f_jax.save(given, tmp_path / "model.safetensors"),
        lambda: a2f_jax.evaluate(given, ["sample"]),
    ):
        with pytest.raises(TypeError, match=re.escape(f"got the name of one: use a2f_jax.load({str(given)!r})")):
            call()
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_a_model_is_refused(model, tmp_path):
    with pytest.raises(TypeError, match=r"expected a model, as a2f_jax.load returns it, got dict"):
        a2f_jax.save(model.params, tmp_path / "model.safetensors")


@pytest.mark.parametrize("dtype", [int, np.float16, None, "foo", "int4x"])
def test_other_data_types_than_those_of_the_computation_are_refused(model, dtype):
    with pytest.raises(ValueError, match="must be float32 or bfloat16"):
        model.with_dtype(dtype)


@pytest.mark.parametrize("scale", [0, 1, "4", 2.5, 2.0])
def test_a_scale_for_which_no_network_exists_is_refused(scale):
    with pytest.raises(ValueError, match="must be one of 2, 3, 4"):
        load("a2f-sd", scale)


def test_a_model_that_has_been_used_can_be_pickled(model, lr):
    image = np.asarray(lr[0])
    expected = model.upscale(image)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(other.upscale(image), expected)


def test_metadata_are_strings(model, tmp_path):
    with pytest.raises(TypeError, match=r"metadata must be strings, .* not 'epoch': 3"):
        Model.from_params(model.params, {"epoch": 3})
    with pytest.raises(TypeError, match=r"metadata must be strings, .* not 'epoch': 3"):
        a2f_jax.save(model, tmp_path / "a.safetensors", {"epoch": 3})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scale", [None, "3", "x"])
def test_metadata_with_a_scale_that_the_network_does_not_have_are_refused(model, scale):
    metadata = {"network": "awsrn", "scale": scale} if scale else {"network": "awsrn"}
    peer = next(name for name, peer in PEERS.items() if peer.scales == (2, 4))
    metadata["network"] = peer
    with pytest.raises(ValueError, match=r"exists for ×2, ×4, but the metadata have scale"):
        Model.from_params(model.params, metadata)


@pytest.mark.parametrize("head", [np.zeros((3, 3, 3, 0), np.float32), np.zeros((0, 3, 3, 4), np.float32)])
def test_parameters_without_values_are_refused(model, head):
    with pytest.raises(ValueError, match="the head has the shape"):
        infer_network({**model.params, "head": {**model.params["head"], "v": head}})
    with pytest.raises(ValueError, match="missing"):
        infer_network({**model.params, "tail": {"bias": np.float32(1)}})


def test_weights_are_loaded_without_a_transfer_to_a_device():
    with jax.transfer_guard("disallow"):
        assert load("a2f-sd", scale=2).scale == 2
