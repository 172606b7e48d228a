"""LapSRN (Lai et al., CVPR 2017).

Source: "Deep Laplacian pyramid networks for fast and accurate super-resolution".

Each level of the pyramid doubles the size, on luma y, with leaky ReLU of slope 0.2:

    h = lrelu(conv3x3(h)), ten times            64 channels
    h = lrelu(transposed_conv3x3(h))            stride 2, on to the next level
    y = transposed_conv4x4(y) + conv3x3(h)      stride 2, starts as bilinear interpolation

before the first level, h = lrelu(conv3x3(y)). Scale 2 has one level, scale 4 two with weights of their own.
"""

import functools

import flax.linen as nn
import jax

from a2f_jax.models.color import LumaNetwork
from a2f_jax.models.peer_layers import PlainConv, TransposedConv

_leaky_relu = functools.partial(nn.leaky_relu, negative_slope=0.2)


class LapSRN(LumaNetwork):
    """The whole network, from LR pixels to SR pixels; see `LumaNetwork`."""

    def luma(self, y: jax.Array) -> jax.Array:
        """See the module's docstring."""
        y = y.astype(self.dtype)
        h = _leaky_relu(PlainConv(64, name="head")(y))
        for level in range(self.scale.bit_length() - 1):
            for i in range(10):
                h = _leaky_relu(PlainConv(64, name=f"level{level}_conv{i}")(h))
            # One pixel more than twice as many would come out; the last row and column are dropped.
            h = _leaky_relu(TransposedConv(64, 3, 2, crop=0, name=f"level{level}_up")(h))
            y = TransposedConv(1, 4, 2, crop=1, use_bias=False, name=f"level{level}_image_up")(y)
            y += PlainConv(1, name=f"level{level}_residual")(h)
        return y
