"""AWSRN (Wang et al., 2019), which A2F builds on.

Source: "Lightweight image super-resolution with adaptive weighted learning network".

With x the normalized image and every convolution weight-normalized,

    s = conv3x3(x)                                                  n channels
    s = block(s), one to four times
    y = sum_k μ_k · pixel_shuffle(conv_kxk(s)), k = 3, 5, 7, 9      plus pixel_shuffle(conv3x3(x))

A unit is u(s) = a · conv3x3(relu(conv3x3(s))) + b · s with 128 channels inside; a block chains units and is a ·
conv3x3(concat of all their outputs) + b · s. The scalars a, b and μ are learned.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from a2f_jax.models.a2f import HALF_RANGE, HIDDEN, RGB_MEAN
from a2f_jax.models.layers import Conv, Dtype, per_channel, pixel_shuffle

FORMS = {"awsrn": (32, 4, 4), "awsrn-m": (32, 4, 3), "awsrn-s": (32, 4, 1), "awsrn-sd": (16, 8, 1)}
"""Features, units per block, and blocks of each variant."""

_TAIL_KERNELS = (3, 5, 7, 9)


def _scalar(module: nn.Module, name: str, initial: float, dtype: Dtype) -> jax.Array:
    return module.param(name, nn.initializers.constant(initial), (), jnp.float32).astype(dtype)


class AdaptiveWeightedUnit(nn.Module):
    """Adaptive weighted residual unit: `[N, H, W, n]` → the same.

    Attributes:
      weight_norm: whether kernels are weight-normalized.
    """

    weight_norm: bool = True

    @nn.compact
    def __call__(self, s: jax.Array) -> jax.Array:
        """See the module's docstring."""
        hidden = nn.relu(Conv(HIDDEN, 3, self.weight_norm, s.dtype, name="expand")(s))
        res = Conv(s.shape[-1], 3, self.weight_norm, s.dtype, name="reduce")(hidden)
        return _scalar(self, "lambda_res", 1.0, s.dtype) * res + _scalar(self, "lambda_x", 1.0, s.dtype) * s


class LocalFusionBlock(nn.Module):
    """Local residual fusion block: `[N, H, W, n]` → the same.

    Attributes:
      units: how many units it chains.
      weight_norm: whether kernels are weight-normalized.
    """

    units: int
    weight_norm: bool = True

    @nn.compact
    def __call__(self, s: jax.Array) -> jax.Array:
        """See the module's docstring."""
        outputs = [s]
        for i in range(self.units):
            outputs.append(AdaptiveWeightedUnit(self.weight_norm, name=f"unit{i}")(outputs[-1]))
        fused = Conv(s.shape[-1], 3, self.weight_norm, s.dtype, name="fuse")(jnp.concatenate(outputs[1:], -1))
        return _scalar(self, "lambda_res", 1.0, s.dtype) * fused + _scalar(self, "lambda_x", 1.0, s.dtype) * s


class AWSRN(nn.Module):
    """The whole network, from LR pixels to SR pixels.

    Attributes:
      scale: upscaling factor.
      features: number n of channels.
      units: units per block.
      blocks: number of blocks.
      weight_norm: whether kernels are weight-normalized; False for the parameters that `fold_weight_norm` returns.
      dtype: computation dtype; parameters and output are float32.
    """

    scale: int
    features: int
    units: int
    blocks: int
    weight_norm: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, lr: jax.Array) -> jax.Array:
        """Upscales a batch: `[N, H, W, 3]` in 0..255 → float32 `[N, scale · H, scale · W, 3]` in the same range."""

        def conv(features: int, name: str, kernel_size: int = 3) -> Conv:
            return Conv(features, kernel_size, self.weight_norm, self.dtype, name=name)

        x = ((lr.astype(jnp.float32) - per_channel(RGB_MEAN, lr)) / HALF_RANGE).astype(self.dtype)
        s = conv(self.features, "head")(x)
        for i in range(self.blocks):
            s = LocalFusionBlock(self.units, self.weight_norm, name=f"block{i}")(s)
        channels = 3 * self.scale**2
        sub_pixels = conv(channels, "skip")(x)
        for k in _TAIL_KERNELS:
            weight = _scalar(self, f"lambda_tail{k}", 0.25, self.dtype)
            sub_pixels += weight * conv(channels, f"tail{k}", k)(s)
        return pixel_shuffle(sub_pixels.astype(jnp.float32), self.scale) * HALF_RANGE + per_channel(RGB_MEAN, lr)
