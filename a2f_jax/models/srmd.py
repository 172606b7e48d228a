"""SRMDNF (Zhang et al., CVPR 2018).

Source: "Learning a single convolutional super-resolution network for multiple degradations".

The image goes in with maps that tell how it was degraded: 15 coefficients of the blur kernel, constant over the
image, 18 channels in all. Ten plain convolutions with 128 channels and ReLU follow, then a convolution with 3 ·
scale² and the pixel shuffle; without residual. Batch normalization during the authors' training is folded into scale
and shift here.

For LR images made by bicubic interpolation, the coefficients are learned parameters: the authors' are the
coordinates, in a basis of principal components that they did not print, of the kernel that approximates it.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from a2f_jax.models.layers import Dtype, per_channel, pixel_shuffle
from a2f_jax.models.memnet import FrozenBatchNorm
from a2f_jax.models.peer_layers import PlainConv

KERNEL_COEFFICIENTS = 15
FEATURES = 128


class SRMDNF(nn.Module):
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
        rgb = (lr.astype(jnp.float32) / 255).astype(self.dtype)
        degradation = self.param("degradation", nn.initializers.zeros, (KERNEL_COEFFICIENTS,), jnp.float32)
        # A function of the batch, so that it is sharded as the batch is.
        maps = 0 * jax.lax.slice_in_dim(rgb, 0, 1, axis=3) + per_channel(degradation.astype(self.dtype), rgb)
        h = nn.relu(PlainConv(FEATURES, name="head")(jnp.concatenate([rgb, maps], -1)))
        for i in range(10):
            h = nn.relu(FrozenBatchNorm(name=f"norm{i}")(PlainConv(FEATURES, name=f"conv{i}")(h)))
        sub_pixels = PlainConv(3 * self.scale**2, name="tail")(h)
        return pixel_shuffle(sub_pixels.astype(jnp.float32), self.scale) * 255
