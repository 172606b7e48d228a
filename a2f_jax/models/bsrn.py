"""BSRN (Li et al., CVPR Workshops 2022).

Source: "Blueprint separable residual network for efficient image super-resolution".

With blueprint separable convolutions (bsconv) and the exact GELU,

    x_0 = bsconv(rgb, repeated four times)                      64 channels
    x_k = block(x_{k−1}), eight times
    y = pixel_shuffle(conv3x3(x_0 + bsconv(gelu(conv1x1(concat(x_1, ..., x_8))))))

A block distills 32 channels d = gelu(conv1x1(r)) before each of three refinements r ← gelu(bsconv(r) + r), and a
fourth gelu(bsconv(r)) with 32 channels; conv1x1 mixes the four, then come spatial attention, contrast attention, and
x is added.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from a2f_jax.models.layers import Dtype, pixel_shuffle
from a2f_jax.models.peer_layers import BlueprintConv, ContrastAttention, EnhancedSpatialAttention, PlainConv

_gelu = functools.partial(nn.gelu, approximate=False)


class SeparableDistillationBlock(nn.Module):
    """Efficient separable distillation block: `[N, H, W, 64]` → the same."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """See the module's docstring."""
        distilled, r = [], x
        for i in (1, 2, 3):
            distilled.append(_gelu(PlainConv(32, 1, name=f"distill{i}")(r)))
            r = _gelu(BlueprintConv(64, name=f"refine{i}")(r) + r)
        distilled.append(_gelu(BlueprintConv(32, name="refine4")(r)))
        h = PlainConv(64, 1, name="mix")(jnp.concatenate(distilled, -1))
        h = EnhancedSpatialAttention(blueprint=True, name="esa")(h)
        return x + ContrastAttention(name="attention")(h)


class BSRN(nn.Module):
    """The whole network, from LR pixels to SR pixels. Its attention looks at the whole image, of at least 15×15 pixels.

    Attributes:
      scale: upscaling factor.
      dtype: computation dtype; parameters and output are float32.
    """

    scale: int
    dtype: Dtype = jnp.float32

    smallest = 15  # LR pixels per side, of which one is left after the strided convolution and the pooling

    @nn.compact
    def __call__(self, lr: jax.Array) -> jax.Array:
        """Upscales a batch: `[N, H, W, 3]` in 0..255 → float32 `[N, scale · H, scale · W, 3]` in the same range."""
        rgb = (lr.astype(jnp.float32) / 255).astype(self.dtype)
        x = BlueprintConv(64, name="head")(jnp.concatenate([rgb] * 4, -1))
        outputs = [x]
        for i in range(8):
            outputs.append(SeparableDistillationBlock(name=f"block{i}")(outputs[-1]))
        fused = _gelu(PlainConv(64, 1, name="fuse")(jnp.concatenate(outputs[1:], -1)))
        h = x + BlueprintConv(64, name="body")(fused)
        sub_pixels = PlainConv(3 * self.scale**2, name="tail")(h)
        return pixel_shuffle(sub_pixels.astype(jnp.float32), self.scale) * 255
