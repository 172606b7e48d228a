"""MSRN (Li et al., ECCV 2018), with eight blocks.

Source: "Multi-scale residual network for image super-resolution".

    x = conv3x3(rgb − mean)                                                     64 channels
    h = conv3x3(conv1x1(concat of the eight blocks' results, then x))
    y = conv3x3(upsample(h)) + mean

A block runs a 3×3 and a 5×5 convolution side by side, twice, each time exchanging what they found, and with ReLU:

    a, b = conv3x3(x), conv5x5(x);  c = concat(a, b);  d, e = conv3x3(c), conv5x5(c)
    the result is x + conv1x1(concat(d, e))
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from a2f_jax.models.a2f import RGB_MEAN
from a2f_jax.models.edsr import SubPixelUpsampler
from a2f_jax.models.layers import Dtype, per_channel
from a2f_jax.models.peer_layers import PlainConv

FEATURES = 64
BLOCKS = 8


class MultiScaleBlock(nn.Module):
    """Multi-scale residual block: `[N, H, W, 64]` → the same."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """See the module's docstring."""
        h = x
        for i, features in ((1, FEATURES), (2, 2 * FEATURES)):
            branches = [nn.relu(PlainConv(features, k, name=f"conv{i}_{k}x{k}")(h)) for k in (3, 5)]
            h = jnp.concatenate(branches, -1)
        return x + PlainConv(FEATURES, 1, name="mix")(h)


class MSRN(nn.Module):
    """The whole network, from LR pixels to SR pixels.

    Attributes:
      scale: upscaling factor.
      dtype: computation dtype; parameters and output are float32.
    """

    scale: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, lr: jax.Array) -> jax.Array:
        """Upscales a batch: `[N, H, W, 3]` in 0..255 → float32 `[N, scale · H, scale · W, 3]` in the same range."""
        x = PlainConv(FEATURES, name="head")((lr.astype(jnp.float32) - per_channel(RGB_MEAN, lr)).astype(self.dtype))
        outputs = [x]
        for i in range(BLOCKS):
            outputs.append(MultiScaleBlock(name=f"block{i}")(outputs[-1]))
        h = PlainConv(FEATURES, 1, name="fuse")(jnp.concatenate([*outputs[1:], x], -1))
        h = SubPixelUpsampler(self.scale, name="upsample")(PlainConv(FEATURES, name="body")(h))
        return PlainConv(3, name="tail")(h).astype(jnp.float32) + per_channel(RGB_MEAN, lr)
