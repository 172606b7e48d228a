"""FSRCNN (Dong et al., ECCV 2016): FSRCNN(56, 12, 4).

Source: "Accelerating the super-resolution convolutional neural network".

On luma y of the LR image, each convolution followed by PReLU,

    h = conv5x5(y)              56 channels
    h = conv1x1(h)              12 channels
    h = conv3x3(h)              12 channels, four times
    h = conv1x1(h)              56 channels
    y' = transposed_conv9x9(h)  stride = scale
"""

import jax

from a2f_jax.models.color import LumaNetwork
from a2f_jax.models.peer_layers import PlainConv, PReLU, TransposedConv


class FSRCNN(LumaNetwork):
    """The whole network, from LR pixels to SR pixels; see `LumaNetwork`."""

    def luma(self, y: jax.Array) -> jax.Array:
        """See the module's docstring."""
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
