"""Luma networks in color: what upscales Y takes bicubic interpolation for Cb and Cr, as its authors do.

Colors are computed in full precision, also where the default of JAX is lower, as in training on accelerators.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from a2f_jax.data.matlab_bicubic import resize_taps
from a2f_jax.models.layers import Dtype, interpolate, per_channel

# ITU-R BT.601 for components in 0..255, as MATLAB's rgb2ycbcr has it, without its rounding.
_TO_YCBCR = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
RGB_TO_LUMA = _TO_YCBCR[0].astype(np.float32)
"""Weights of R, G and B in Y, apart from its offset of 16; they add up to 219 / 255."""

_OFFSET = np.array([16.0, 128.0, 128.0])
_FROM_YCBCR = np.linalg.inv(_TO_YCBCR)


def rgb_to_ycbcr(rgb: jax.Array) -> jax.Array:
    """`[..., 3]` in 0..255 → Y in 16..235, Cb and Cr in 16..240."""
    components = jnp.matmul(rgb, jnp.asarray(_TO_YCBCR.T, rgb.dtype), precision="highest")
    return components + per_channel(jnp.asarray(_OFFSET, rgb.dtype), rgb)


def ycbcr_to_rgb(ycbcr: jax.Array) -> jax.Array:
    """The inverse of `rgb_to_ycbcr`; nothing is clipped."""
    components = ycbcr - per_channel(jnp.asarray(_OFFSET, ycbcr.dtype), ycbcr)
    return jnp.matmul(components, jnp.asarray(_FROM_YCBCR.T, ycbcr.dtype), precision="highest")


def bicubic(x: jax.Array, scale: int) -> jax.Array:
    """Enlarges `[N, H, W, C]` by MATLAB's bicubic interpolation, without rounding or clipping; edges are repeated."""
    # Away from the edges, all pixels have the same taps; no tap reaches farther than this.
    middle = 3
    taps = np.zeros((2 * middle + 1, scale))
    index, weight = resize_taps(len(taps), scale, "clamp")
    for p in range(scale):
        np.add.at(taps[:, p], index[middle * scale + p], weight[middle * scale + p])
    rows = np.flatnonzero(taps.any(1))
    margin = max(middle - rows[0], rows[-1] - middle)
    return interpolate(x, taps[middle - margin : middle + margin + 1])


class LumaNetwork(nn.Module):
    """A network for luma, which is trained and measured on Y: the base class of the older networks.

    A subclass defines `luma`. Cb and Cr are interpolated by MATLAB's bicubic, as the authors of such networks do.

    Attributes:
      scale: upscaling factor.
      dtype: computation dtype; parameters and output are float32.
    """

    scale: int
    dtype: Dtype = jnp.float32

    enlarged = False  # whether `luma` takes Y already enlarged by bicubic interpolation

    @nn.compact
    def __call__(self, lr: jax.Array) -> jax.Array:
        """Upscales a batch: `[N, H, W, 3]` in 0..255 → float32 `[N, scale · H, scale · W, 3]` in the same range."""
        ycbcr = rgb_to_ycbcr(lr.astype(jnp.float32))
        interpolated = bicubic(ycbcr, self.scale)
        luma, chroma = jnp.split(interpolated, [1], -1)
        seen = luma if self.enlarged else jnp.split(ycbcr, [1], -1)[0]
        y = self.luma(seen / 255) * 255
        return ycbcr_to_rgb(jnp.concatenate([y.astype(jnp.float32), chroma], -1))

    def luma(self, y: jax.Array) -> jax.Array:
        """Upscales Y / 255, which is defined by a subclass.

        Args:
          y: `[N, h, w, 1]`, of the size of LR, or of SR if the class is `enlarged`.

        Returns:
          `[N, scale · H, scale · W, 1]`.
        """
        raise NotImplementedError
