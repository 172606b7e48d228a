"""IDN (Hui et al., CVPR 2018).

Source: "Fast and accurate single image super-resolution via information distillation network".

On luma y, leaky ReLU of slope 0.05 after every convolution but the last,

    x = conv3x3(conv3x3(y))                         64 channels
    x = block(x), four times
    y' = bicubic(y) + transposed_conv17x17(x)       stride = scale; from pixel scale − 1 on

and a block with the channels 48, 32 (4 groups), 64 keeps the first 16 (p), takes the other 48 through 64, 48 (4
groups), 80 channels, adds concat(x, p), and ends in conv1x1 with 64 channels.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from a2f_jax.models.color import LumaNetwork, bicubic
from a2f_jax.models.peer_layers import PlainConv, TransposedConv

_leaky_relu = functools.partial(nn.leaky_relu, negative_slope=0.05)


class DistillationBlock(nn.Module):
    """Enhancement and compression unit: `[N, H, W, 64]` → the same."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """See the module's docstring."""

        def conv(x: jax.Array, features: int, name: str, groups: int = 1) -> jax.Array:
            return _leaky_relu(PlainConv(features, groups=groups, name=name)(x))

        h = conv(conv(conv(x, 48, "conv1"), 32, "conv2", 4), 64, "conv3")
        kept, h = jnp.split(h, [16], -1)
        h = conv(conv(conv(h, 64, "conv4"), 48, "conv5", 4), 80, "conv6")
        return _leaky_relu(PlainConv(64, 1, name="compress")(h + jnp.concatenate([x, kept], -1)))


class IDN(LumaNetwork):
    """The whole network, from LR pixels to SR pixels; see `LumaNetwork`."""

    def luma(self, y: jax.Array) -> jax.Array:
        """See the module's docstring."""
        h = y.astype(self.dtype)
        for i in (1, 2):
            h = _leaky_relu(PlainConv(64, name=f"head{i}")(h))
        for i in range(4):
            h = DistillationBlock(name=f"block{i}")(h)
        # scale · (n − 1) + 1 pixels a side, which lie on the last ones of the enlarged image.
        residual = TransposedConv(1, 17, self.scale, crop=8, extra=1 - self.scale, name="deconv")(h)
        margin = self.scale - 1
        return bicubic(y, self.scale) + jnp.pad(residual, ((0, 0), (margin, 0), (margin, 0), (0, 0)))
