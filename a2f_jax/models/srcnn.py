"""SRCNN (Dong et al., TPAMI 2016), in its 9-5-5 form.

Source: "Image super-resolution using deep convolutional networks".

On luma y that is enlarged already, with edges repeated instead of zero padding,

    h = relu(conv9x9(y))        64 channels
    h = relu(conv5x5(h))        32 channels
    y' = conv5x5(h)
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from a2f_jax.models.color import upscale_luma
from a2f_jax.models.layers import Dtype
from a2f_jax.models.peer_layers import PlainConv


class SRCNN(nn.Module):
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

        def conv(x: jax.Array, features: int, size: int, name: str) -> jax.Array:
            margin = size // 2
            x = jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)), "edge")
            return PlainConv(features, size, padding="VALID", name=name)(x)

        def network(y: jax.Array) -> jax.Array:
            h = nn.relu(conv(y.astype(self.dtype), 64, 9, "conv1"))
            h = nn.relu(conv(h, 32, 5, "conv2"))
            return conv(h, 1, 5, "conv3")

        return upscale_luma(lr, self.scale, network, enlarged=True)
