"""IMDN (Hui et al., ACM MM 2019).

Source: "Lightweight image super-resolution with information multi-distillation network".

With leaky ReLU of slope 0.05,

    x_0 = conv3x3(rgb)                                          64 channels
    x_k = block(x_{k−1}), six times
    y = pixel_shuffle(conv3x3(x_0 + conv3x3(lrelu(conv1x1(concat(x_1, ..., x_6))))))

A block keeps 16 of the 64 channels after each of three convolutions, takes the other 48 on, and adds a fourth
convolution with 16; the four are concatenated, weighted by contrast-aware attention, mixed by conv1x1, and added to
x.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from a2f_jax.models.layers import Dtype, pixel_shuffle
from a2f_jax.models.peer_layers import ContrastAttention, PlainConv

_leaky_relu = functools.partial(nn.leaky_relu, negative_slope=0.05)


class MultiDistillationBlock(nn.Module):
    """Information multi-distillation block: `[N, H, W, 64]` → the same."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """See the module's docstring."""
        kept, h = [], x
        for i in (1, 2, 3):
            h = _leaky_relu(PlainConv(64, name=f"conv{i}")(h))
            part, h = jnp.split(h, [16], -1)
            kept.append(part)
        kept.append(PlainConv(16, name="conv4")(h))
        weighted = ContrastAttention(name="attention")(jnp.concatenate(kept, -1))
        return x + PlainConv(64, 1, name="mix")(weighted)


class IMDN(nn.Module):
    """The whole network, from LR pixels to SR pixels. Its attention looks at the whole image.

    Attributes:
      scale: upscaling factor.
      dtype: computation dtype; parameters and output are float32.
    """

    scale: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, lr: jax.Array) -> jax.Array:
        """Upscales a batch: `[N, H, W, 3]` in 0..255 → float32 `[N, scale · H, scale · W, 3]` in the same range."""
        x = PlainConv(64, name="head")((lr.astype(jnp.float32) / 255).astype(self.dtype))
        outputs = [x]
        for i in range(6):
            outputs.append(MultiDistillationBlock(name=f"block{i}")(outputs[-1]))
        fused = _leaky_relu(PlainConv(64, 1, name="fuse")(jnp.concatenate(outputs[1:], -1)))
        h = x + PlainConv(64, name="body")(fused)
        sub_pixels = PlainConv(3 * self.scale**2, name="tail")(h)
        return pixel_shuffle(sub_pixels.astype(jnp.float32), self.scale) * 255
