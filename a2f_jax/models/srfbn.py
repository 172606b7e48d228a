"""SRFBN and SRFBN-S (Li et al., CVPR 2019).

Source: "Feedback network for image super-resolution".

Four steps with the same weights; each convolution is followed by PReLU with one slope. With m channels and G groups,

    f = conv1x1(conv3x3(rgb − mean));  h = f
    in every step: h = feedback(f, h);  y = mean + bilinear(rgb − mean) + conv3x3(up(h))

The feedback block starts with L_0 = conv1x1(concat(f, h)); group g = 1..G computes H_g = up(conv1x1(L_0, ...,
L_{g−1})) and L_g = down(conv1x1(H_1, ..., H_g)), without the conv1x1 in the first group; its result is conv1x1(L_1,
..., L_G). `up` and `down` are transposed and strided convolutions between LR and SR size. The result is the last
step's image.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from a2f_jax.models.a2f import RGB_MEAN
from a2f_jax.models.layers import Dtype, per_channel
from a2f_jax.models.peer_layers import PlainConv, PReLU, ProjectionDown, ProjectionUp, enlarge_bilinear

STEPS = 4
FORMS = {"srfbn": (64, 6), "srfbn-s": (32, 3)}
"""Channels m and groups G of either variant."""


def _activated(x: jax.Array, layer: nn.Module) -> jax.Array:
    return PReLU(channelwise=False, initial=0.2, name=f"{layer.name}_prelu")(layer(x))


class FeedbackBlock(nn.Module):
    """The feedback block: f and h, each `[N, H, W, m]` → the next h.

    Attributes:
      scale: between LR and SR size.
      groups: number of projection groups.
    """

    scale: int
    groups: int

    @nn.compact
    def __call__(self, f: jax.Array, h: jax.Array) -> jax.Array:
        """See the module's docstring."""
        m = f.shape[-1]

        def mixed(states: list[jax.Array], name: str) -> jax.Array:
            return _activated(jnp.concatenate(states, -1), PlainConv(m, 1, name=name))

        low, high = [mixed([f, h], "input")], []
        for g in range(self.groups):
            seen = mixed(low, f"mix_low{g}") if g else low[0]
            high.append(_activated(seen, ProjectionUp(m, self.scale, name=f"up{g}")))
            seen = mixed(high, f"mix_high{g}") if g else high[0]
            low.append(_activated(seen, ProjectionDown(m, self.scale, name=f"down{g}")))
        return mixed(low[1:], "output")


class SRFBN(nn.Module):
    """The whole network, from LR pixels to SR pixels.

    Attributes:
      scale: upscaling factor.
      features: number m of channels.
      groups: number G of projection groups.
      dtype: computation dtype; parameters and output are float32.
    """

    scale: int
    features: int
    groups: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, lr: jax.Array) -> jax.Array:
        """Upscales a batch: `[N, H, W, 3]` in 0..255 → float32 `[N, scale · H, scale · W, 3]` in the same range."""
        rgb = (lr.astype(jnp.float32) - per_channel(RGB_MEAN, lr)).astype(self.dtype)
        f = _activated(rgb, PlainConv(4 * self.features, name="head1"))
        h = f = _activated(f, PlainConv(self.features, 1, name="head2"))
        block = FeedbackBlock(self.scale, self.groups, name="block")
        for _ in range(STEPS):
            h = block(f, h)
        residual = PlainConv(3, name="tail")(_activated(h, ProjectionUp(self.features, self.scale, name="up")))
        interpolated = enlarge_bilinear(rgb, self.scale)
        return (interpolated + residual).astype(jnp.float32) + per_channel(RGB_MEAN, lr)
