"""Exported models against the models they were made of."""

import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from flax import linen as nn

import a2f_jax
from a2f_jax.errors import UserError
from a2f_jax.exporting.formats import export
from a2f_jax.files import as_path
from a2f_jax.hardware import compile_only_devices, parse_target
from a2f_jax.model import Model, load
from a2f_jax.models.a2f import A2F, ABLATIONS, VARIANTS, build
from a2f_jax.models.layers import pixel_shuffle
from a2f_jax.models.registry import PEERS

DIFFERENT = ("srcnn", "lapsrn", "idn", "carn-m", "imdn", "pan", "srfbn-s", "srmdnf", "awsrn-s")
"""Compared networks that together have all kinds of layers; the others take longer."""


@pytest.fixture(scope="module")
def model(random_params):
    return Model.from_params(random_params(A2F(scale=2, features=8, blocks=2)))


def small_weights(params):
    # As in a trained network, values stay in the range of images, for which the tolerance is meant.
    return jax.tree.map_with_path(lambda path, x: x * 0.3 if path[-1].key in ("g", "kernel") else x, params)


def expected(model, lr):
    # Without optimization, which would take longer than the computation.
    return jax.jit(model, compiler_options={"xla_backend_optimization_level": 0})(lr)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_onnx_runtime_agrees_with_the_shipped_weights_at_any_size(scale, exported, images):
    model = load("a2f-sd", scale)
    run = exported(model)
    # Odd, tiny and in a batch; without optimization, larger images would take longer.
    for shape in {2: [(1, 33, 40, 3)], 3: [(1, 8, 8, 3), (2, 17, 12, 3)], 4: [(1, 7, 29, 3)]}[scale]:
        lr = images(*shape)
        np.testing.assert_allclose(run(lr), expected(model, lr), atol=1e-3)


@pytest.mark.parametrize(
    "network",
    [
        *(build(variant, 2) for variant in VARIANTS),
        *(build("a2f-sd", 3, **{**options, "blocks": 3}) for options in ABLATIONS.values()),
        A2F(scale=4, features=8, blocks=1, head_kernel=5),
    ],
    ids=lambda network: f"{network.features}x{network.blocks}",
)
def test_onnx_runtime_agrees_with_every_variant_and_ablation(network, random_params, exported, images):
    model = Model(network, small_weights(random_params(network)))
    run, lr = exported(model), images(2, 9, 11, 3)
    np.testing.assert_allclose(run(lr), expected(model, lr), atol=1e-3)


@pytest.mark.parametrize("name", DIFFERENT)
def test_onnx_runtime_agrees_with_the_compared_networks(name, random_params, exported, images):
    network = PEERS[name].make(PEERS[name].scales[0])
    model = Model(network, small_weights(random_params(network)))
    run, lr = exported(model), images(2, 9, 11, 3)
    np.testing.assert_allclose(run(lr), expected(model, lr), atol=1e-3)


@pytest.mark.parametrize("suffix", [".onnx", ".stablehlo"])
@pytest.mark.parametrize("name", ["rlfn", "bsrn", "falsr-a", "falsr-b", "falsr-c"])
def test_a_network_that_is_made_for_one_size_of_image_is_refused(name, suffix, tmp_path):
    network = PEERS[name].make(2)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]
    model = Model(network, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes))
    with pytest.raises(
        UserError,
        match=f"^cannot export {name} to .*model{suffix}: part of its program depends on the image size.*another",
    ):
        export(model, tmp_path / f"model{suffix}")
    assert not list(tmp_path.iterdir())


class Windows(nn.Module):
    """A network that pads images to whole windows, as attention in windows does."""

    scale: int = 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, lr):
        rest = -lr.shape[1] % 8, -lr.shape[2] % 8
        padded = jnp.pad(lr, ((0, 0), (0, rest[0]), (0, rest[1]), (0, 0)), mode="reflect")
        return pixel_shuffle(nn.Conv(12, (3, 3))(padded), 2)


class Broken(nn.Module):
    scale: int = 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, lr):
        raise TypeError("a mistake of my own")


@pytest.mark.parametrize("suffix", [".onnx", ".stablehlo"])
def test_the_reason_of_jax_is_part_of_the_message_and_mistakes_of_the_network_stay_what_they_are(suffix, tmp_path):
    params = Windows().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    with pytest.raises(UserError, match=r"depends on the image size.*\(.*reflect.*\)"):
        export(Model(Windows(), params), tmp_path / f"model{suffix}")
    with pytest.raises(TypeError, match=r"^a mistake of my own\n"):
        export(Model(Broken(), {}), tmp_path / f"model{suffix}")
    assert not list(tmp_path.iterdir())


def test_uint8_images_are_rounded_and_clipped_as_by_upscale(model, exported, images):
    lr = images(1, 12, 9, 3).astype(np.uint8)
    sr = exported(model, input="uint8")(lr)
    assert sr.dtype == np.uint8
    np.testing.assert_allclose(sr, np.clip(expected(model, lr), 0, 255), atol=0.5 + 1e-3)


def test_float16_is_smaller_and_only_a_little_different(exported, images, tmp_path):
    model, lr = load("a2f-sd-x2"), images(1, 20, 16, 3)
    sr = exported(model, dtype="float16")(lr)
    assert sr.dtype == np.float32
    half = (tmp_path / "model.onnx").stat().st_size
    error = np.abs(sr - expected(model, lr))
    assert 0 < error.max() < 2  # of values up to 255, with 11 bits in every layer
    exported(model)
    assert half < 0.6 * (tmp_path / "model.onnx").stat().st_size


def test_a_graph_is_valid_and_tells_what_it_is(tmp_path):
    a2f_jax.export(a2f_jax.load("a2f-sd-x3"), tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(graph, full_check=True)
    about = {entry.key: entry.value for entry in graph.metadata_props}
    expected = {"variant": "a2f-sd", "scale": "3", "layout": "NHWC", "range": "0..255", "colors": "RGB"}
    assert about | expected == about
    assert about["version"] == f"a2f_jax {a2f_jax.__version__}"
    assert graph.opset_import[0].version == 17
    dims = {
        value.name: [d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim]
        for value in (*graph.graph.input, *graph.graph.output)
    }
    assert dims == {"lr": ["batch", "height", "width", 3], "sr": ["batch", "3*height", "3*width", 3]}


STABLEHLO = """
import sys
import jax.export
import numpy as np

results = {}
for name in ("float32", "uint8"):
    with open(f"{name}.stablehlo", "rb") as file:
        upscale = jax.export.deserialize(bytearray(file.read()))
    assert upscale.platforms == ("tpu", "cuda", "cpu")
    for shape, lr in np.load("lr.npz").items():
        results[f"{name} {shape}"] = upscale.call(lr.astype(name))
np.savez("sr.npz", **results)
assert not {name.partition(".")[0] for name in sys.modules} & {"a2f_jax", "flax"}
"""


def test_jax_alone_computes_the_same_pixels_at_any_size(images, tmp_path):
    model = load("a2f-sd", 3)
    for name in ("float32", "uint8"):
        export(model, tmp_path / f"{name}.stablehlo", input=name)
    lrs = {str(shape): images(*shape).round() for shape in ((1, 8, 8, 3), (2, 13, 10, 3))}
    np.savez(tmp_path / "lr.npz", **lrs)
    # Optimizations take more time than they save.
    env = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    subprocess.run([sys.executable, "-c", STABLEHLO], check=True, cwd=tmp_path, env=env)
    srs = np.load(tmp_path / "sr.npz")
    for shape, lr in lrs.items():
        sr = expected(model, lr)
        np.testing.assert_allclose(srs[f"float32 {shape}"], sr, atol=1e-3)
        assert srs[f"uint8 {shape}"].dtype == np.uint8
        np.testing.assert_allclose(srs[f"uint8 {shape}"], np.clip(sr, 0, 255), atol=0.5 + 1e-3)


@pytest.mark.parametrize("target", ["v5e:1x1", "h100:1"])
def test_a_stablehlo_program_compiles_for_other_devices(target, model, tmp_path):
    export(model, tmp_path / "model.stablehlo")
    upscale = jax.export.deserialize(bytearray((tmp_path / "model.stablehlo").read_bytes())).call
    device = compile_only_devices(parse_target(target))[0]
    lr = jax.ShapeDtypeStruct((1, 24, 32, 3), jnp.float32, sharding=jax.sharding.SingleDeviceSharding(device))
    assert jax.jit(upscale).lower(lr).compile().out_info.shape == (1, 48, 64, 3)


def test_exported_programs_convolve_directly(tmp_path):
    # Winograd's algorithm, which is faster on a CPU, would be wrong for other devices.
    model = load("a2f-sd-x4")
    assert model.upscaler().network.winograd
    export(model, tmp_path / "model.stablehlo")
    program = jax.export.deserialize(bytearray((tmp_path / "model.stablehlo").read_bytes())).mlir_module()
    convolutions = program.count("stablehlo.convolution")
    assert convolutions
    assert convolutions % (1 + 2 * 8 + 2) == 0  # head, blocks, tail and skip, perhaps once for each platform
    export(model, tmp_path / "model.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert kinds.count("Conv") == 1 + 3 * 8 + 2  # also the projections
    assert kinds.count("DepthToSpace") == 1
    assert kinds.count("Transpose") == 2  # of the input and the output


def test_bfloat16_is_exported_for_jax_only(model, images, tmp_path):
    narrow = model.with_dtype(jnp.bfloat16)
    export(narrow, tmp_path / "model.stablehlo")
    upscale = jax.export.deserialize(bytearray((tmp_path / "model.stablehlo").read_bytes()))
    lr = images(1, 8, 9, 3)
    np.testing.assert_allclose(upscale.call(lr), expected(model, lr), atol=4)  # with 8 bits in every layer
    assert "xbf16>" in upscale.mlir_module()
    with pytest.raises(UserError, match=r"\.onnx files cannot compute in bfloat16: choose float32 or float16"):
        export(narrow, tmp_path / "model.onnx")


class Mixed(nn.Module):
    """A network of float32 with a layer that computes in bfloat16."""

    scale: int = 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, lr):
        h = nn.Conv(3 * self.scale**2, (3, 3), dtype=jnp.bfloat16)(lr.astype(self.dtype))
        return pixel_shuffle(h.astype(jnp.float32), self.scale)


def test_a_layer_that_computes_in_bfloat16_is_refused_as_well(tmp_path):
    params = Mixed().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    with pytest.raises(UserError, match=r"it computes in bfloat16, .* Export it to \.stablehlo"):
        export(Model(Mixed(), params), tmp_path / "model.onnx")


def test_what_cannot_be_written_is_refused_with_the_choices(model, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"must end in \.onnx \(.*\) or \.stablehlo \("):
        export(model, tmp_path / "model.pb")
    with pytest.raises(ValueError, match="input is 'int8', but must be one of float32, uint8"):
        export(model, tmp_path / "model.onnx", input="int8")
    with pytest.raises(UserError, match="cannot write"):
        export(model, "/proc/none/model.onnx")
    (tmp_path / "folder.onnx").mkdir()
    monkeypatch.setattr("jax.make_jaxpr", lambda *_: pytest.fail("the work started"))
    with pytest.raises(UserError, match=r"folder.onnx is a folder: add the name of a file"):
        export(model, tmp_path / "folder.onnx")
    (tmp_path / "folder.onnx").rmdir()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'a2f_jax\[export\]'"):
        export(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_model_is_exported_into_a_bucket(model, bucket):
    export(model, f"{bucket}/model.stablehlo")
    program = as_path(f"{bucket}/model.stablehlo").read_bytes()
    assert jax.export.deserialize(bytearray(program)).platforms == ("tpu", "cuda", "cpu")
