"""EDSR (Lim et al., CVPR Workshops 2017), the large model.

Source: "Enhanced deep residual networks for single image super-resolution".

x = conv3x3(rgb − mean) 256 channels h = x + conv3x3(32 times h ← h + 0.1 · conv3x3(relu(conv3x3(h)))) y =
conv3x3(upsample(h)) + mean
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from a2f_jax.models.a2f import RGB_MEAN
from a2f_jax.models.layers import Dtype, per_channel, pixel_shuffle
from a2f_jax.models.peer_layers import PlainConv


class SubPixelUpsampler(nn.Module):
    """Convolutions followed by pixel shuffle, once for ×2 and ×3 and twice for ×4: `[N, H, W, C]` → `[N, s·H, s·W, C]`.

    Attributes:
      scale: 2, 3 or 4.
    """

    scale: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """See the class."""
        features = x.shape[-1]
        for i, factor in enumerate({2: (2,), 3: (3,), 4: (2, 2)}[self.scale]):
            x = pixel_shuffle(PlainConv(features * factor**2, name=f"conv{i}")(x), factor)
        return x


class EDSR(nn.Module):
    """The whole network, from LR pixels to SR pixels.

    Attributes:
      scale: upscaling factor.
      features: number of channels.
      blocks: number of residual blocks.
      residual_scale: what the residual branches are multiplied by.
      dtype: computation dtype; parameters and output are float32.
    """

    scale: int
    features: int = 256
    blocks: int = 32
    residual_scale: float = 0.1
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, lr: jax.Array) -> jax.Array:
        """Upscales a batch: `[N, H, W, 3]` in 0..255 → float32 `[N, scale · H, scale · W, 3]` in the same range."""
        x = h = PlainConv(self.features, name="head")(
            (lr.astype(jnp.float32) - per_channel(RGB_MEAN, lr)).astype(self.dtype)
        )
        for i in range(self.blocks):
            inner = nn.relu(PlainConv(self.features, name=f"block_{i:02d}_conv1")(h))
            h += self.residual_scale * PlainConv(self.features, name=f"block_{i:02d}_conv2")(inner)
        h = SubPixelUpsampler(self.scale, name="upsample")(x + PlainConv(self.features, name="body")(h))
        return PlainConv(3, name="tail")(h).astype(jnp.float32) + per_channel(RGB_MEAN, lr)
