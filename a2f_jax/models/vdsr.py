"""VDSR (Kim et al., CVPR 2016).

Source: "Accurate image super-resolution using very deep convolutional networks".

Twenty 3×3 convolutions with 64 channels on enlarged luma, ReLU between them; the result is added to the input. One
network serves all scales.
"""

import flax.linen as nn
import jax

from a2f_jax.models.color import LumaNetwork
from a2f_jax.models.peer_layers import PlainConv

DEPTH = 20
"""The number of convolutions."""


class VDSR(LumaNetwork):
    """The whole network, from LR pixels to SR pixels; see `LumaNetwork`."""

    enlarged = True

    def luma(self, y: jax.Array) -> jax.Array:
        """See the module's docstring."""
        h = y.astype(self.dtype)
        for i in range(1, DEPTH):
            h = nn.relu(PlainConv(64, name=f"conv{i:02d}")(h))
        return y + PlainConv(1, name=f"conv{DEPTH}")(h)
