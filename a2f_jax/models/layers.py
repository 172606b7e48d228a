"""Layers of A2F: weight-normalized convolution, 1×1 convolution and pixel shuffle; interpolation."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from a2f_jax.models import packed
from a2f_jax.models.convolution import convolve

Dtype = Any

# PyTorch's default initialization of convolutions, which the paper uses: uniform in ±1/sqrt(fan_in), which has a
# variance of 1 / (3 · fan_in).
# Of float32 also in processes whose default is float64 (`JAX_ENABLE_X64`).
conv_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform", dtype=jnp.float32)


def bias_init(fan_in: int) -> nn.initializers.Initializer:
    """Returns PyTorch's default initializer of the bias of a convolution: uniform in ±1/sqrt(fan_in)."""
    bound = fan_in**-0.5

    def init(key: jax.Array, shape: Sequence[int], dtype: Dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def per_channel(values: jax.Array | np.ndarray, x: jax.Array) -> jax.Array:
    """Returns values for each channel, `[C]`, as `[1, ..., 1, C]` with the rank of `x`.

    Broadcasting `[C]` itself is an error with `jax_numpy_rank_promotion="raise"`, JAX's setting that finds mistakes.
    """
    return jax.lax.broadcast_to_rank(values, x.ndim)


def abstract_variables(network: nn.Module, *shape: int) -> Any:
    """Returns the shapes and dtypes of the variables of a network for batches of a shape, without any computation."""
    return jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros(shape)))


def check_result(network: Any, height: int, width: int, sr: Any) -> None:
    """Checks that a network, possibly one of the user's, returns what it has to return.

    Args:
      network: a module with the attribute `scale`.
      height: the height of its input.
      width: the width of its input.
      sr: what it returns for one image of this size, or the shape and the dtype of it.

    Raises:
      TypeError: it is something else than floating-point `[1, scale · H, scale · W, 3]`.
    """
    name, scale = type(network).__name__, network.scale
    shape, dtype = getattr(sr, "shape", ()), getattr(sr, "dtype", np.dtype(object))
    if shape != (1, scale * height, scale * width, 3) or not jnp.issubdtype(dtype, jnp.floating):
        found = f"{dtype} {list(shape)}" if hasattr(sr, "dtype") else f"a {type(sr).__name__}"
        raise TypeError(
            f"{name} has scale={scale}, so for [1, {height}, {width}, 3] it must return floating-point "
            f"[1, {scale * height}, {scale * width}, 3], but it returns {found}"
        )


def kernel_norm(v: jax.Array) -> jax.Array:
    """Returns the Euclidean norm of each output channel's kernel: `[h, w, in, out]` → `[out]`."""
    return jnp.sqrt(jnp.sum(jnp.square(v), axis=(0, 1, 2)))


def normalized_kernel(v: jax.Array, g: jax.Array) -> jax.Array:
    """Returns the kernel `g · v / |v|`, normalized per output channel (Salimans & Kingma, 2016).

    Args:
      v: direction, `[h, w, in, out]`.
      g: gain, `[out]`.
    """
    return v * per_channel(g / kernel_norm(v), v)


class Conv(nn.Module):
    """A k×k convolution with zero padding, bias and weight normalization.

    Its parameters are `v` `[k, k, in, features]`, `g` `[features]` and `bias` `[features]`. Without weight
    normalization, for inference, they are `kernel` `[k, k, in, features]` and `bias`.

    Attributes:
      features: number of output channels.
      kernel_size: k, odd.
      weight_norm: whether the kernel is given by direction `v` and gain `g`.
      dtype: computation dtype; parameters are always float32.
      winograd: whether wide 3×3 kernels use Winograd's algorithm.
      pixels: number of pixels in the channels of the input, see `a2f_jax.models.packed`; 1 if it is not packed.
    """

    features: int
    kernel_size: int = 3
    weight_norm: bool = True
    dtype: Dtype = jnp.float32
    winograd: bool = False
    pixels: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[N, H, W, in]` to `[N, H, W, features]`, or `pixels` of each row to the `pixels − k + 1` inner ones."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1] // self.pixels, self.features)
        if self.weight_norm:
            v = self.param("v", conv_init, shape)
            g = self.param("g", lambda _: kernel_norm(v))
            kernel = normalized_kernel(v, g)
        else:
            kernel = self.param("kernel", conv_init, shape)
        bias = self.param("bias", bias_init(shape[0] * shape[1] * shape[2]), (self.features,))
        kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)
        if self.pixels > 1:
            y, bias = packed.convolve(x, kernel, self.pixels), jnp.tile(bias, self.pixels - self.kernel_size + 1)
        else:
            y = convolve(x, kernel, winograd=self.winograd)
        return y + per_channel(bias, y)


class PackedProjection(nn.Module):
    """The 1×1 convolution without bias of several packed states, with the parameter of `pointwise_conv`.

    Attributes:
      pixels: number of pixels in a pack.
      dtype: computation dtype; the parameter is always float32.
    """

    pixels: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, states: Sequence[jax.Array]) -> jax.Array:
        """Maps k states `[N, H, W/q, q·n]` to one."""
        n = states[0].shape[-1] // self.pixels
        kernel = self.param("kernel", conv_init, (len(states) * n, n)).astype(self.dtype)
        matrices = [packed.block_diagonal(part, self.pixels) for part in jnp.split(kernel, len(states))]
        return jnp.concatenate(states, -1) @ jnp.concatenate(matrices)


def pointwise_conv(features: int, fan_in: int, dtype: Dtype, name: str, use_bias: bool = True) -> nn.Dense:
    """Returns a 1×1 convolution, a matrix product over the channels: `[..., fan_in]` → `[..., features]`."""
    return nn.Dense(
        features,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=conv_init,
        bias_init=bias_init(fan_in),
        name=name,
    )


def pixel_shuffle(x: jax.Array, scale: int) -> jax.Array:
    """Rearranges channels into sub-pixels, in the channel order of ESPCN (Shi et al., 2016).

    Args:
      x: `[N, H, W, C · scale²]`. Channel `(c · scale + dy) · scale + dx` is color c of the sub-pixel (dy, dx).
      scale: upscaling factor.

    Returns:
      `[N, scale · H, scale · W, C]`.
    """
    n, h, w, channels = x.shape
    colors = channels // scale**2
    # Axes are split and merged one at a time, as sharding in types (`jax.sharding.AxisType.Explicit`) requires.
    x = x.reshape(n, h, w, colors, scale**2).reshape(n, h, w, colors, scale, scale).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(n, h * scale, w, scale, colors).reshape(n, h * scale, w * scale, colors)


INTERPOLATION = "interpolation"
"""The scope of the operations of `interpolate`, which papers do not count."""


def repeat_edges(x: jax.Array, margin: int) -> jax.Array:
    """Pads height and width with copies of the edges: `[N, H, W, C]` → `[N, H + 2 · margin, W + 2 · margin, C]`."""
    for axis in (1, 2):  # `jnp.pad` pads all axes, which exported programs would do as well
        size = x.shape[axis]
        first, last = (jax.lax.slice_in_dim(x, start, start + 1, axis=axis) for start in (0, size - 1))
        x = jnp.concatenate([first] * margin + [x] + [last] * margin, axis)
    return x


def interpolate(x: jax.Array, taps: np.ndarray) -> jax.Array:
    """Enlarges images by a separable kernel, with the edges repeated.

    Args:
      x: `[N, H, W, C]`.
      taps: `[k, scale]` with odd k. `taps[j, p]` is the weight of pixel i + j − (k − 1) / 2 in sub-pixel p of pixel i,
        along either axis.

    Returns:
      `[N, scale · H, scale · W, C]` of the same dtype.
    """
    (k, scale), channels = taps.shape, x.shape[-1]
    # Zeros between the channels cost less than XLA's convolution in groups on a CPU.
    kernel = np.einsum("iy,jx,cd->ijcdyx", taps, taps, np.eye(channels)).reshape(k, k, channels, -1)
    with jax.named_scope(INTERPOLATION):
        sub_pixels = jax.lax.conv_general_dilated(
            repeat_edges(x, k // 2),
            jnp.asarray(kernel, x.dtype),
            window_strides=(1, 1),
            padding="VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision="highest",
        )
        return pixel_shuffle(sub_pixels, scale)
