"""SRCNN (Dong et al., TPAMI 2016), in its 9-5-5 form.

Source: "Image super-resolution using deep convolutional networks".

On luma y that is enlarged already, with edges repeated instead of zero padding,

    h = relu(conv9x9(y))        64 channels
    h = relu(conv5x5(h))        32 channels
    y' = conv5x5(h)
"""

import flax.linen as nn
import jax

from a2f_jax.models.color import LumaNetwork
from a2f_jax.models.layers import repeat_edges
from a2f_jax.models.peer_layers import PlainConv


class SRCNN(LumaNetwork):
    """The whole network, from LR pixels to SR pixels; see `LumaNetwork`."""

    enlarged = True

    def luma(self, y: jax.Array) -> jax.Array:
        """See the module's docstring."""

        def conv(x: jax.Array, features: int, size: int, name: str) -> jax.Array:
            return PlainConv(features, size, padding="VALID", name=name)(repeat_edges(x, size // 2))

        h = nn.relu(conv(y.astype(self.dtype), 64, 9, "conv1"))
        h = nn.relu(conv(h, 32, 5, "conv2"))
        return conv(h, 1, 5, "conv3")
