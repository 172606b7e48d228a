"""Translated functions in ONNX Runtime, against JAX."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from a2f_jax.exporting.onnx_graph import onnx_graph
from a2f_jax.exporting.onnx_translation import UntranslatableError
from a2f_jax.models.layers import pixel_shuffle, repeat_edges

_RNG = np.random.default_rng(0)
KERNEL = _RNG.normal(size=(3, 3, 3, 4)).astype(np.float32)
MATRIX = _RNG.normal(size=(3, 5)).astype(np.float32)
BIAS = _RNG.normal(size=5).astype(np.float32)


def graph_of(function):
    lr = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("batch, height, width"), 3), jnp.float32)
    return onnx_graph(jax.make_jaxpr(function)(lr), {"variant": "none", "version": "a2f_jax 0"})


def conv(x, padding="SAME", strides=(1, 1), kernel=KERNEL, **options):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=layout, **options)


@jax.custom_vjp
def straight_through(x):
    return jnp.round(x) + 1


straight_through.defvjp(lambda x: (straight_through(x), None), lambda _, g: (g,))


def tensorflow_shuffle(x):
    n, h, w, _ = x.shape
    return x.reshape(n, h, w, 2, 2, 1).transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, 1)


FUNCTIONS = {
    "elementwise operations": lambda x: jnp.tanh(x / 3 - 1) * jnp.exp(-x) + jnp.sqrt(jnp.abs(jnp.maximum(x, 0.5))),
    "constants that are broadcast": lambda x: jnp.concatenate([x, jnp.broadcast_to(BIAS, (*x.shape[:3], 5))], -1),
    "sums": lambda x: x - x.sum((1, 2))[:, None, None, :],
    "means": lambda x: x - x.mean((1, 2), keepdims=True) + x.mean((1, 2))[:, None, None],
    "a mean over channels": lambda x: x.mean(-1, keepdims=True),
    "dense layers": lambda x: nn.relu(x.mean((1, 2)) @ MATRIX + BIAS),
    "pointwise convolutions": lambda x: x @ MATRIX + BIAS,
    "convolutions without padding": lambda x: conv(x, "VALID") * 0.5 + BIAS[:4],
    "strided convolutions": lambda x: conv(x, "VALID", (2, 2)),
    "transposed convolutions": lambda x: conv(x, [(2, 3), (2, 3)], lhs_dilation=(2, 2)) + BIAS[:4],
    "pooling": lambda x: nn.max_pool(x, (3, 2), (2, 1), "VALID"),
    "dilated pooling": lambda x: jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, 3, 2, 1), (1, 1, 2, 1), "VALID", window_dilation=(1, 2, 3, 1)
    ),
    "rounding": lambda x: jnp.round(2 * x) / 2,
    "edges by NumPy's name": lambda x: jnp.pad(x, ((0, 0), (1, 1), (2, 0), (0, 0)), mode="edge"),
    "functions with gradients of their own": straight_through,
    "activations": lambda x: nn.leaky_relu(x - 1, 0.2) + jax.scipy.special.erf(x) + nn.sigmoid(x),
    "sigmoids near zero": lambda x: nn.sigmoid(-10 * x) * 1e4,
    "padding with a value": lambda x: jnp.pad(x, ((0, 0), (1, 2), (3, 0), (0, 0)), constant_values=7.0),
    "repeated edges": lambda x: repeat_edges(x, 2),
    "repeated pixels": lambda x: x.repeat(2, 1).repeat(3, 2),
    "slices": lambda x: jax.lax.slice_in_dim(jax.lax.slice_in_dim(x, 1, 3, axis=3), 1, x.shape[1], axis=1),
    "splits": lambda x: jnp.concatenate(jnp.split(x, [1], -1)[::-1], -1),
    "pixel shuffles": lambda x: pixel_shuffle(conv(x), 2),
    "pixel shuffles in the order of TensorFlow": lambda x: tensorflow_shuffle(conv(x)),
    "a constant": lambda x: jnp.zeros_like(x) + jnp.asarray(KERNEL[0, 0].sum(-1)) + 0 * x,
    "the input": lambda x: x,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@jax.numpy_rank_promotion("allow")  # as users write their networks
def test_onnx_runtime_computes_what_jax_computes(name):
    function = FUNCTIONS[name]
    session = onnxruntime.InferenceSession(graph_of(function).SerializeToString(), providers=["CPUExecutionProvider"])
    for shape in ((2, 6, 5, 3), (1, 8, 9, 3)):
        x = np.random.default_rng(1).uniform(0, 4, shape).astype(np.float32)
        (have,) = session.run(None, {"lr": x})
        np.testing.assert_allclose(have, function(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: jnp.sort(x, -1), "the operation sort has no translation"),
        (lambda x: jnp.einsum("nhwc,nhwd->nhcd", x, x), "a product of this kind"),
        (lambda x: conv(x, kernel=x.sum() * KERNEL), "a convolution with a computed kernel"),
        (lambda x: jax.lax.pad(x, 0.0, ((0, 0, 0), (0, 0, 0), (0, 0, 0), (0, -1, 0))), "padding of this kind"),
        (jax.lax.round, "it rounds halves away from zero"),
        (
            lambda x: jax.lax.reduce_window(
                x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "VALID", base_dilation=(1, 2, 2, 1)
            ),
            "pooling of this kind",
        ),
        (
            lambda x: jax.image.resize(x, (x.shape[0], 2 * x.shape[1], 2 * x.shape[2], 3), "linear"),
            "depends on the size",
        ),
        (
            lambda x: jax.image.resize(x, (x.shape[0], 2 * x.shape[1], 2 * x.shape[2], 3), "nearest"),
            "depends on the size",
        ),
    ],
    ids=["sort", "product", "kernel", "padding", "rounding", "pooling", "linear", "nearest"],
)
def test_an_operation_without_translation_is_named(function, message):
    with pytest.raises(UntranslatableError, match=message):
        graph_of(function)


def test_weights_that_several_layers_share_are_stored_once():
    graph = graph_of(lambda x: conv(x) + conv(x * 2)).graph
    assert [node.op_type for node in graph.node].count("Conv") == 2
    assert sum(tuple(constant.dims) == (4, 3, 3, 3) for constant in graph.initializer) == 1
