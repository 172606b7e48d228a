"""FSRCNN (Dong et al., ECCV 2016): FSRCNN(56, 12, 4).

Source: "Accelerating the super-resolution convolutional neural network".

On luma y of the LR image, each convolution followed by PReLU,

    h = conv5x5(y)              56 channels
    h = conv1x1(h)              12 channels
    h = conv3x3(h)              12 channels, four times
    h = conv1x1(h)              56 channels
    y' = transposed_conv9x9(h)  stride = scale
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from a2f_jax.models.color import upscale_luma
from a2f_jax.models.layers import Dtype
from a2f_jax.models.peer_layers import PlainConv, PReLU, TransposedConv


class FSRCNN(nn.Module):
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
            layers = [
                ("extract", 56, 5),
                ("shrink", 12, 1),
                *((f"map_{i}", 12, 3) for i in range(4)),
                ("expand", 56, 1),
            ]
            for name, features, size in layers:
                h = PReLU(name=f"{name}_prelu")(PlainConv(features, size, name=name)(h))
            return TransposedConv(1, 9, self.scale, crop=4, name="deconv")(h)

        return upscale_luma(lr, self.scale, network)
