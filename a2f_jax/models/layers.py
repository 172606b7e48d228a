"""The building blocks of A2F: weight-normalised convolution, pixel shuffle, channel attention."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from a2f_jax.models.convolution import convolve

Dtype = Any

# The initialisation of PyTorch's convolutions, which the paper's training started from: uniform within
# ±1/sqrt(fan in), that is a variance of 1 / (3 · fan in).
conv_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def bias_init(fan_in: int) -> nn.initializers.Initializer:
    """Returns PyTorch's initialiser of a convolution's bias: uniform within ±1/sqrt(fan in)."""
    bound = fan_in**-0.5

    def init(key: jax.Array, shape: Sequence[int], dtype: Dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def kernel_norm(v: jax.Array) -> jax.Array:
    """Euclidean norm of each output channel's kernel: `[h, w, in, out]` → `[out]`."""
    return jnp.sqrt(jnp.sum(jnp.square(v), axis=(0, 1, 2)))


def normalised_kernel(v: jax.Array, g: jax.Array) -> jax.Array:
    """Weight normalisation per output channel, `g · v / |v|` (Salimans & Kingma, 2016)."""
    return v * (g / kernel_norm(v))


class Conv(nn.Module):
    """A k×k convolution with zero padding and bias, weight-normalised while it is trained.

    Its parameters are `v` `[k, k, in, features]`, `g` `[features]` and `bias` `[features]`; folded for
    inference (`weight_norm=False`) they are `kernel` and `bias`.

    Attributes:
      features: number of output channels.
      kernel_size: k, odd.
      weight_norm: whether the kernel is given by direction `v` and gain `g`.
      dtype: computation dtype; parameters are always float32.
      winograd: see `a2f_jax.models.convolution.convolve`.
    """

    features: int
    kernel_size: int = 3
    weight_norm: bool = True
    dtype: Dtype = jnp.float32
    winograd: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, in]` → `[N, H, W, features]`."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        if self.weight_norm:
            v = self.param("v", conv_init, shape)
            g = self.param("g", lambda _: kernel_norm(v))
            kernel = normalised_kernel(v, g)
        else:
            kernel = self.param("kernel", conv_init, shape)
        bias = self.param("bias", bias_init(shape[0] * shape[1] * shape[2]), (self.features,))
        return convolve(x, kernel.astype(self.dtype), winograd=self.winograd) + bias.astype(self.dtype)


def pointwise_conv(features: int, fan_in: int, dtype: Dtype, name: str, use_bias: bool = True) -> nn.Dense:
    """A plain 1×1 convolution, which is a matrix product over the channels: `[..., fan_in]` → `[..., features]`."""
    return nn.Dense(
        features,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=conv_init,
        bias_init=bias_init(fan_in),
        name=name,
    )


def pixel_shuffle(x: jax.Array, scale: int) -> jax.Array:
    """Sub-pixel rearrangement with the channel order of ESPCN (Shi et al., 2016).

    Args:
      x: `[N, H, W, C · scale²]`; channel `(c · scale + dy) · scale + dx` holds colour c of sub-pixel (dy, dx).
      scale: upscaling factor.

    Returns:
      `[N, scale · H, scale · W, C]`.
    """
    n, h, w, channels = x.shape
    x = x.reshape(n, h, w, channels // scale**2, scale, scale)
    return x.transpose(0, 1, 4, 2, 5, 3).reshape(n, h * scale, w * scale, channels // scale**2)
