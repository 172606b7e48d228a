"""VDSR (Kim et al., CVPR 2016).

Source: "Accurate image super-resolution using very deep convolutional networks".

Twenty 3×3 convolutions with 64 channels on enlarged luma, ReLU between them; the result is added to the input. One
network serves all scales.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from a2f_jax.models.color import upscale_luma
from a2f_jax.models.layers import Dtype
from a2f_jax.models.peer_layers import PlainConv

DEPTH = 20
"""The number of convolutions."""


class VDSR(nn.Module):
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

        def network(y: jax.Array) -> jax.Array:
            h = y.astype(self.dtype)
            for i in range(1, DEPTH):
                h = nn.relu(PlainConv(64, name=f"conv{i:02d}")(h))
            return y + PlainConv(1, name=f"conv{DEPTH}")(h)

        return upscale_luma(lr, self.scale, network, enlarged=True)
