"""PAN (Zhao et al., ECCV Workshops 2020).

Source: "Efficient image super-resolution using pixel attention".

    x = conv3x3(rgb)                                    40 channels
    h = x + conv3x3(16 blocks (x))
    h = stage(nearest(h)) for each factor               24 channels
    y = conv3x3(h) + bilinear(rgb)

with stage(h) = lrelu(conv3x3(lrelu(a · sigmoid(conv1x1(a))))), a = conv3x3(h), and leaky ReLU of slope 0.2. A block
splits into two branches of 20 channels: conv1x1, lrelu, then conv3x3 in the one, in the other conv3x3(conv3x3(b) ·
sigmoid(conv1x1(b))); both end in lrelu and are mixed by conv1x1, and x is added.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from a2f_jax.models.layers import Dtype
from a2f_jax.models.peer_layers import PlainConv, enlarge_bilinear

_leaky_relu = functools.partial(nn.leaky_relu, negative_slope=0.2)


class PixelAttentionBlock(nn.Module):
    """Self-calibrated block with pixel attention: `[N, H, W, 40]` → the same."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """See the module's docstring."""

        def conv(x: jax.Array, features: int, size: int, name: str) -> jax.Array:
            return PlainConv(features, size, use_bias=False, name=name)(x)

        a, b = (_leaky_relu(conv(x, 20, 1, f"split_{name}")) for name in "ab")
        a = _leaky_relu(conv(a, 20, 3, "conv_a"))
        attention = nn.sigmoid(PlainConv(20, 1, name="attention")(b))
        b = _leaky_relu(conv(conv(b, 20, 3, "conv_b1") * attention, 20, 3, "conv_b2"))
        return x + conv(jnp.concatenate([a, b], -1), 40, 1, "mix")


class PAN(nn.Module):
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
        rgb = (lr.astype(jnp.float32) / 255).astype(self.dtype)
        x = h = PlainConv(40, name="head")(rgb)
        for i in range(16):
            h = PixelAttentionBlock(name=f"block_{i:02d}")(h)
        h = x + PlainConv(40, name="body")(h)
        for i, factor in enumerate({2: (2,), 3: (3,), 4: (2, 2)}[self.scale]):
            h = PlainConv(24, name=f"up{i}_conv1")(h.repeat(factor, 1).repeat(factor, 2))
            h = _leaky_relu(h * nn.sigmoid(PlainConv(24, 1, name=f"up{i}_attention")(h)))
            h = _leaky_relu(PlainConv(24, name=f"up{i}_conv2")(h))
        interpolated = enlarge_bilinear(rgb, self.scale)
        return (PlainConv(3, name="tail")(h) + interpolated).astype(jnp.float32) * 255
