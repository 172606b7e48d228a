"""SRDenseNet (Tong et al., ICCV 2017), with all skips, for ×4.

Source: "Image super-resolution using dense skip connections".

On luma y of the LR image, each convolution followed by ReLU,

    x = conv3x3(y)                                                          128 channels
    eight dense blocks, each of which sees x and all earlier blocks' results
    h = conv1x1(concat(x and all results))                                  256 channels
    y' = conv3x3(transposed_conv2x2(transposed_conv2x2(h)))                 stride 2 each; nothing after the last

A block has eight convolutions with 16 channels: the first sees the block's input, each other one all earlier results
of the block, and the eight are concatenated.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from a2f_jax.models.color import LumaNetwork
from a2f_jax.models.peer_layers import PlainConv, TransposedConv

GROWTH = 16
LAYERS = 8
BLOCKS = 8


class DenseBlock(nn.Module):
    """A dense block: `[N, H, W, in]` → `[N, H, W, 128]`."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """See the module's docstring."""
        outputs: list[jax.Array] = []
        for i in range(LAYERS):
            seen = jnp.concatenate(outputs, -1) if outputs else x
            outputs.append(nn.relu(PlainConv(GROWTH, name=f"conv{i}")(seen)))
        return jnp.concatenate(outputs, -1)


class SRDenseNet(LumaNetwork):
    """The whole network, from LR pixels to SR pixels; see `LumaNetwork`."""

    def luma(self, y: jax.Array) -> jax.Array:
        """See the module's docstring."""
        outputs = [nn.relu(PlainConv(GROWTH * LAYERS, name="head")(y.astype(self.dtype)))]
        for i in range(BLOCKS):
            outputs.append(DenseBlock(name=f"block{i}")(jnp.concatenate(outputs, -1)))
        h = nn.relu(PlainConv(256, 1, use_bias=False, name="bottleneck")(jnp.concatenate(outputs, -1)))
        for i in range(2):
            h = nn.relu(TransposedConv(256, 2, 2, crop=0, use_bias=False, name=f"up{i}")(h))
        return PlainConv(1, use_bias=False, name="tail")(h)
