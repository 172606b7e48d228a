"""D-DBPN (Haris et al., CVPR 2018), with seven up- and six down-units.

Source: "Deep back-projection networks for super-resolution".

Each convolution is followed by PReLU, and `up` and `down` are projections between LR and SR size, 64 channels:

    x = conv1x1(conv3x3(rgb))
    up-unit:    H_0 = up(x), L_0 = down(H_0), H_1 = up(L_0 − x), the result is H_0 + H_1
    down-unit:  L_0 = down(x), H_0 = up(L_0), L_1 = down(H_0 − x), the result is L_0 + L_1

Units take turns; from the third up-unit and the second down-unit on, a unit sees all earlier results of the other
kind, reduced by conv1x1. The image is conv3x3 of the concatenation of all seven up-units' results.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from a2f_jax.models.layers import Dtype
from a2f_jax.models.peer_layers import PlainConv, PReLU, ProjectionDown, ProjectionUp

FEATURES = 64
UP_UNITS = 7


def _activated(x: jax.Array, layer: nn.Module) -> jax.Array:
    return PReLU(channelwise=False, name=f"{layer.name}_prelu")(layer(x))


class BackProjectionUnit(nn.Module):
    """An up- or down-unit.

    Attributes:
      scale: between LR and SR size.
      up: which of the two.
    """

    scale: int
    up: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, 64]` → `[N, s · H, s · W, 64]`, or the other way round."""
        there, back = (ProjectionUp, ProjectionDown) if self.up else (ProjectionDown, ProjectionUp)
        first = _activated(x, there(FEATURES, self.scale, name="project1"))
        again = _activated(first, back(FEATURES, self.scale, name="project2"))
        return first + _activated(again - x, there(FEATURES, self.scale, name="project3"))


class DBPN(nn.Module):
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
        x = _activated(_activated(rgb, PlainConv(256, name="head1")), PlainConv(FEATURES, 1, name="head2"))

        def reduced(states: list[jax.Array], name: str) -> jax.Array:
            if len(states) == 1:
                return states[0]
            return _activated(jnp.concatenate(states, -1), PlainConv(FEATURES, 1, name=name))

        high: list[jax.Array] = []
        low: list[jax.Array] = []
        for i in range(UP_UNITS):
            high.append(
                BackProjectionUnit(self.scale, up=True, name=f"up{i}")(reduced(low, f"reduce_low{i}") if low else x)
            )
            if i < UP_UNITS - 1:
                low.append(BackProjectionUnit(self.scale, up=False, name=f"down{i}")(reduced(high, f"reduce_high{i}")))
        return PlainConv(3, name="tail")(jnp.concatenate(high, -1)).astype(jnp.float32) * 255
