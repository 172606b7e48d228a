"""CARN and CARN-M (Ahn et al., ECCV 2018).

Source: "Fast, accurate, and lightweight super-resolution with cascading residual network".

Cascading happens on two levels: in a block b over three residual units, and in the network over three blocks, each
time as

    o_0 = x;  o_k = relu(conv1x1(concat(x, f_1(o_0), ..., f_k(o_{k−1})))), k = 1, 2, 3;  the result is o_3

CARN's unit is relu(x + conv3x3(relu(conv3x3(x)))), and every unit has weights of its own. CARN-M's has two
convolutions in four groups, each with ReLU, then conv1x1, and one set of weights for the three units of a block; its
upsampling convolutions have four groups, too.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from a2f_jax.models.layers import Dtype, per_channel, pixel_shuffle
from a2f_jax.models.peer_layers import PlainConv

RGB_MEAN_OF_1 = np.array([0.4488, 0.4371, 0.4040], np.float32)
"""Mean color of DIV2K in 0..1, subtracted from the input and added to the output."""

_GROUPS = 4  # of CARN-M


def _cascade(x: jax.Array, parts: Sequence[Callable[[jax.Array], jax.Array]]) -> jax.Array:
    outputs, o = [x], x
    for i, part in enumerate(parts):
        outputs.append(part(o))
        o = nn.relu(PlainConv(64, 1, name=f"fuse{i}")(jnp.concatenate(outputs, -1)))
    return o


class CascadingUnit(nn.Module):
    """A residual unit: `[N, H, W, 64]` → the same.

    Attributes:
      efficient: whether it is CARN-M's.
    """

    efficient: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """See the module's docstring."""
        groups = _GROUPS if self.efficient else 1
        h = nn.relu(PlainConv(64, groups=groups, name="conv1")(x))
        h = PlainConv(64, groups=groups, name="conv2")(h)
        if self.efficient:
            h = PlainConv(64, 1, name="conv3")(nn.relu(h))
        return nn.relu(x + h)


class CascadingBlock(nn.Module):
    """A block: `[N, H, W, 64]` → the same.

    Attributes:
      efficient: whether it is CARN-M's, whose three units share their weights.
    """

    efficient: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """See the module's docstring."""
        if self.efficient:
            return _cascade(x, [CascadingUnit(True, name="unit")] * 3)
        return _cascade(x, [CascadingUnit(False, name=f"unit{i}") for i in range(3)])


class CARN(nn.Module):
    """The whole network, from LR pixels to SR pixels.

    Attributes:
      scale: 2, 3 or 4.
      efficient: whether it is CARN-M.
      dtype: computation dtype; parameters and output are float32.
    """

    scale: int
    efficient: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, lr: jax.Array) -> jax.Array:
        """Upscales a batch: `[N, H, W, 3]` in 0..255 → float32 `[N, scale · H, scale · W, 3]` in the same range."""
        x = (lr.astype(jnp.float32) / 255 - per_channel(RGB_MEAN_OF_1, lr)).astype(self.dtype)
        h = PlainConv(64, name="entry")(x)
        h = _cascade(h, [CascadingBlock(self.efficient, name=f"block{i}") for i in range(3)])
        groups = _GROUPS if self.efficient else 1
        for i, factor in enumerate({2: (2,), 3: (3,), 4: (2, 2)}[self.scale]):
            h = PlainConv(64 * factor**2, groups=groups, name=f"upsample{i}")(h)
            h = pixel_shuffle(nn.relu(h), factor)
        y = PlainConv(3, name="exit")(h).astype(jnp.float32)
        return (y + per_channel(RGB_MEAN_OF_1, y)) * 255
