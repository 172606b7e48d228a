"""DRCN (Kim et al., CVPR 2016), with 16 recursions.

Source: "Deeply-recursive convolutional network for image super-resolution".

On enlarged luma y, each convolution but the last followed by ReLU, 256 channels,

    h_0 = conv3x3(conv3x3(y));  h_k = conv3x3(h_{k−1}), one kernel for all
    y' = Σ_k w_k · (y + conv3x3(conv3x3(h_k))), k = 1..16, one pair of kernels for all and learned weights w

One network serves all scales.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from a2f_jax.models.color import LumaNetwork
from a2f_jax.models.peer_layers import PlainConv

FEATURES = 256
RECURSIONS = 16


class DRCN(LumaNetwork):
    """The whole network, from LR pixels to SR pixels; see `LumaNetwork`."""

    enlarged = True

    def luma(self, y: jax.Array) -> jax.Array:
        """See the module's docstring."""
        y = h = y.astype(self.dtype)
        for i in (1, 2):
            h = nn.relu(PlainConv(FEATURES, name=f"embed{i}")(h))
        recursion = PlainConv(FEATURES, name="recursion")
        reconstruct1, reconstruct2 = PlainConv(FEATURES, name="reconstruct1"), PlainConv(1, name="reconstruct2")
        weights = self.param("weights", nn.initializers.constant(1 / RECURSIONS), (RECURSIONS,), jnp.float32)
        weights = weights.astype(self.dtype)
        total = jnp.zeros_like(y)
        for k in range(RECURSIONS):
            h = nn.relu(recursion(h))
            total += weights[k] * (y + reconstruct2(nn.relu(reconstruct1(h))))
        return total
