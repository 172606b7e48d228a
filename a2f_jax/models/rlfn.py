"""RLFN (Kong et al., CVPR Workshops 2022).

Source: "Residual local feature network for efficient super-resolution".

    x = conv3x3(rgb)                                        52 channels, rgb in 0..255
    y = pixel_shuffle(conv3x3(x + conv3x3(six blocks (x))))

with block(x) = ESA(conv1x1(x + three times lrelu(conv3x3(...)))), leaky ReLU of slope 0.05.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from a2f_jax.models.layers import Dtype, pixel_shuffle
from a2f_jax.models.peer_layers import EnhancedSpatialAttention, PlainConv


class ResidualLocalFeatureBlock(nn.Module):
    """A block: `[N, H, W, 52]` → the same."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """See the module's docstring."""
        h = x
        for i in (1, 2, 3):
            h = nn.leaky_relu(PlainConv(52, name=f"conv{i}")(h), 0.05)
        return EnhancedSpatialAttention(name="esa")(PlainConv(52, 1, name="mix")(x + h))


class RLFN(nn.Module):
    """The whole network, from LR pixels to SR pixels. Its attention looks at the whole image, of at least 15×15 pixels.

    Attributes:
      scale: upscaling factor.
      dtype: computation dtype; parameters and output are float32.
    """

    scale: int
    dtype: Dtype = jnp.float32

    smallest = 15  # LR pixels per side, of which one is left after the strided convolution and the pooling

    @nn.compact
    def __call__(self, lr: jax.Array) -> jax.Array:
        """Upscales a batch: `[N, H, W, 3]` in 0..255 → float32 `[N, scale · H, scale · W, 3]` in the same range."""
        x = h = PlainConv(52, name="head")(lr.astype(jnp.float32).astype(self.dtype))
        for i in range(6):
            h = ResidualLocalFeatureBlock(name=f"block{i}")(h)
        h = x + PlainConv(52, name="body")(h)
        sub_pixels = PlainConv(3 * self.scale**2, name="tail")(h)
        return pixel_shuffle(sub_pixels.astype(jnp.float32), self.scale)
