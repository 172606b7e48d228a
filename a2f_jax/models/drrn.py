"""DRRN (Tai et al., CVPR 2017), one block, 25 units: B1U25.

Source: "Image super-resolution via deep recursive residual network".

On enlarged luma y, without biases and, as in the weights that are published, without batch normalization,

    r = relu(y)
    a = relu(conv3x3(r))                        128 channels
    h = a, then 25 times h = relu(conv3x3_2(relu(conv3x3_1(h))) + a), the two kernels shared
    y' = conv3x3(h) + r

One network serves all scales.
"""

import flax.linen as nn
import jax

from a2f_jax.models.color import LumaNetwork
from a2f_jax.models.peer_layers import PlainConv

UNITS = 25
"""The number of recursions."""


class DRRN(LumaNetwork):
    """The whole network, from LR pixels to SR pixels; see `LumaNetwork`."""

    enlarged = True

    def luma(self, y: jax.Array) -> jax.Array:
        """See the module's docstring."""
        rectified = nn.relu(y.astype(self.dtype))
        first = nn.relu(PlainConv(128, use_bias=False, name="head")(rectified))
        conv1, conv2 = (PlainConv(128, use_bias=False, name=name) for name in ("conv1", "conv2"))
        h = first
        for _ in range(UNITS):
            h = nn.relu(conv2(nn.relu(conv1(h))) + first)
        return PlainConv(1, use_bias=False, name="tail")(h) + rectified
