"""RCAN (Zhang et al., ECCV 2018).

Source: "Image super-resolution using very deep residual channel attention networks".

    x = conv3x3(rgb − mean)                                                 64 channels
    h = x + conv3x3(10 groups (x)),  group(x) = x + conv3x3(20 blocks (x))
    y = conv3x3(upsample(h)) + mean

with block(x) = x + a · r, r = conv3x3(relu(conv3x3(x))), a = sigmoid(conv1x1(relu(conv1x1(mean_hw(r))))).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from a2f_jax.models.a2f import RGB_MEAN
from a2f_jax.models.edsr import SubPixelUpsampler
from a2f_jax.models.layers import Dtype, per_channel
from a2f_jax.models.peer_layers import PlainConv

FEATURES = 64


class ChannelAttentionBlock(nn.Module):
    """Residual channel attention block: `[N, H, W, 64]` → the same. Its attention looks at the whole image."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """See the module's docstring."""
        r = PlainConv(FEATURES, name="conv2")(nn.relu(PlainConv(FEATURES, name="conv1")(x)))
        mean = jnp.mean(r, (1, 2), keepdims=True, dtype=jnp.float32).astype(r.dtype)
        hidden = nn.relu(PlainConv(FEATURES // 16, 1, name="squeeze")(mean))
        return x + r * nn.sigmoid(PlainConv(FEATURES, 1, name="excite")(hidden))


class ResidualGroup(nn.Module):
    """Blocks and a convolution, with a residual: `[N, H, W, 64]` → the same.

    Attributes:
      blocks: number of blocks.
    """

    blocks: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """See the module's docstring."""
        h = x
        for i in range(self.blocks):
            h = ChannelAttentionBlock(name=f"block_{i:02d}")(h)
        return x + PlainConv(FEATURES, name="conv")(h)


class RCAN(nn.Module):
    """The whole network, from LR pixels to SR pixels. Its attention looks at the whole image.

    Attributes:
      scale: upscaling factor.
      groups: number of residual groups.
      blocks: number of blocks per group.
      dtype: computation dtype; parameters and output are float32.
    """

    scale: int
    groups: int = 10
    blocks: int = 20
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, lr: jax.Array) -> jax.Array:
        """Upscales a batch: `[N, H, W, 3]` in 0..255 → float32 `[N, scale · H, scale · W, 3]` in the same range."""
        x = h = PlainConv(FEATURES, name="head")(
            (lr.astype(jnp.float32) - per_channel(RGB_MEAN, lr)).astype(self.dtype)
        )
        for i in range(self.groups):
            h = ResidualGroup(self.blocks, name=f"group{i}")(h)
        h = SubPixelUpsampler(self.scale, name="upsample")(x + PlainConv(FEATURES, name="body")(h))
        return PlainConv(3, name="tail")(h).astype(jnp.float32) + per_channel(RGB_MEAN, lr)
