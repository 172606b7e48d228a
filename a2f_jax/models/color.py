"""Luma networks in color: what upscales Y takes bicubic interpolation for Cb and Cr, as its authors do."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from a2f_jax.data.matlab_bicubic import resize_taps

# ITU-R BT.601 for components in 0..255, as MATLAB's rgb2ycbcr has it, without its rounding.
_TO_YCBCR = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
_OFFSET = np.array([16.0, 128.0, 128.0])
_FROM_YCBCR = np.linalg.inv(_TO_YCBCR)


def rgb_to_ycbcr(rgb: jax.Array) -> jax.Array:
    """`[..., 3]` in 0..255 → Y in 16..235, Cb and Cr in 16..240."""
    return rgb @ jnp.asarray(_TO_YCBCR.T, rgb.dtype) + jnp.asarray(_OFFSET, rgb.dtype)


def ycbcr_to_rgb(ycbcr: jax.Array) -> jax.Array:
    """The inverse of `rgb_to_ycbcr`; nothing is clipped."""
    return (ycbcr - jnp.asarray(_OFFSET, ycbcr.dtype)) @ jnp.asarray(_FROM_YCBCR.T, ycbcr.dtype)


def bicubic(x: jax.Array, scale: int) -> jax.Array:
    """Enlarges `[N, H, W, C]` by MATLAB's bicubic interpolation, without rounding or clipping; edges are repeated."""
    for axis in (1, 2):
        index, weight = resize_taps(x.shape[axis], scale, "clamp")
        x = jnp.moveaxis(x, axis, -1)
        x = jnp.einsum("...ot,ot->...o", x[..., index], jnp.asarray(weight, x.dtype))
        x = jnp.moveaxis(x, -1, axis)
    return x


def upscale_luma(
    lr: jax.Array, scale: int, network: Callable[[jax.Array], jax.Array], *, enlarged: bool = False
) -> jax.Array:
    """Upscales a color image with a network for luma.

    Args:
      lr: `[N, H, W, 3]`, RGB in 0..255.
      scale: of the network.
      network: `[N, h, w, 1]` → `[N, scale · H, scale · W, 1]`, both Y / 255.
      enlarged: whether the network takes Y already enlarged by bicubic interpolation.

    Returns:
      float32 `[N, scale · H, scale · W, 3]`, RGB in 0..255.
    """
    ycbcr = rgb_to_ycbcr(lr.astype(jnp.float32))
    interpolated = bicubic(ycbcr, scale)
    luma = network((interpolated if enlarged else ycbcr)[..., :1] / 255) * 255
    return ycbcr_to_rgb(jnp.concatenate([luma.astype(jnp.float32), interpolated[..., 1:]], -1))
