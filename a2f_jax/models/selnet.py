"""SelNet (Choi & Kim, CVPR Workshops 2017).

Source: "A deep convolutional neural network with selection units for super-resolution".

A selection unit multiplies its input by a mask of the same size, su(x) = x · sigmoid(conv1x1(relu(x))). With 64
channels,

    h = su(conv3x3(rgb))
    ten times  h = h + su(conv3x3(su(conv3x3(h))))
    y = bicubic(rgb) + conv3x3(pixel_shuffle(conv3x3(h)))

No code of the authors is public. Number and size of the layers are inferred from the parameters and multi-adds in the
paper's tables, at both scales; where the skips begin and end, and the bicubic residual, could not be verified.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from a2f_jax.models.color import bicubic
from a2f_jax.models.layers import Dtype, pixel_shuffle
from a2f_jax.models.peer_layers import PlainConv

FEATURES = 64
RESIDUAL_UNITS = 10


class SelNet(nn.Module):
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

        def selected(x: jax.Array, name: str) -> jax.Array:
            x = PlainConv(FEATURES, name=name)(x)
            return x * nn.sigmoid(PlainConv(FEATURES, 1, name=f"{name}_selection")(nn.relu(x)))

        rgb = lr.astype(jnp.float32) / 255
        h = selected(rgb.astype(self.dtype), "head")
        for i in range(RESIDUAL_UNITS):
            h += selected(selected(h, f"unit{i}_conv1"), f"unit{i}_conv2")
        h = pixel_shuffle(PlainConv(FEATURES * self.scale**2, name="expand")(h), self.scale)
        return (bicubic(rgb, self.scale) + PlainConv(3, name="tail")(h).astype(jnp.float32)) * 255
