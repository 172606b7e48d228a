"""Convolution of rows whose pixels are packed into the channels, for TPUs with few images per chip.

A TPU computes on vectors of 128 lanes. A state of A2F has 16 or 32 channels, so most lanes are empty, and XLA moves
pixels between them and the batch around every convolution. Packed, q adjacent pixels of a row share the lanes,

    [N, H, W, c] → [N, H, W/q, q·c],

which moves nothing in memory. A k×k convolution becomes a k×1 convolution whose kernel is a band matrix from the
channels of q + k − 1 pixels to those of q pixels, and a 1×1 convolution a block-diagonal matrix product. They multiply
by many zeros, but the matrix units of a TPU have time to spare (`benchmarks/accelerators.py`).
"""

import jax
import jax.numpy as jnp
import numpy as np

_LANES = 128

# From 128 images on, XLA lays the batch along the lanes; with 64, it splits each into two.
_MOST_IMAGES = 32


def pixels_per_pack(platform: str, features: int, images: int) -> int:
    """Returns the number of pixels to pack into the channels of the states of A2F; 1 means not to pack.

    Args:
      platform: the platform of the device that computes: `"cpu"`, `"gpu"` or `"tpu"`.
      features: number of channels of a state.
      images: number of images that the device computes at once.
    """
    return max(1, _LANES // features) if platform == "tpu" and images <= _MOST_IMAGES else 1


def with_neighbors(x: jax.Array, pixels: int, halo: int) -> jax.Array:
    """Extends each pack by the nearest pixels of the packs beside it, and by zeros at the border.

    Args:
      x: `[N, H, W/q, q·c]`.
      pixels: q.
      halo: number of pixels to add on each side, at most q.

    Returns:
      `[N, H, W/q, (q + 2 · halo) · c]`.
    """
    if not halo:
        return x
    size = x.shape[-1] // pixels * halo
    before, after = x[..., :-1, -size:], x[..., 1:, :size]
    outside = jnp.zeros((*x.shape[:2], 1, size), x.dtype)
    return jnp.concatenate(
        [jnp.concatenate([outside, before], 2), x, jnp.concatenate([after, outside], 2)],
        -1,
    )


def inside(packs: int, pixels: int, halo: int, channels: int) -> np.ndarray:
    """Returns which channels of packs with neighbors belong to pixels inside the image.

    Args:
      packs: number of packs in a row, W/q.
      pixels: q.
      halo: number of additional pixels on each side of a pack.
      channels: number of channels of a pixel.

    Returns:
      bool `[packs, (q + 2 · halo) · channels]`.
    """
    column = np.arange(packs)[:, None] * pixels + np.arange(-halo, pixels + halo)
    return ((column >= 0) & (column < packs * pixels)).repeat(channels, 1)


def convolve(x: jax.Array, kernel: jax.Array, pixels: int) -> jax.Array:
    """Convolves packs with stride 1. Rows are padded with zeros; within a row, only whole neighborhoods are computed.

    Args:
      x: `[N, H, packs, pixels · in]`, where the pixels include the neighbors that the kernel reaches.
      kernel: `[k, k, in, out]` with odd k.
      pixels: number of pixels in a pack of `x`, at least k.

    Returns:
      `[N, H, packs, (pixels − k + 1) · out]`.
    """
    k, _, fan_in, out = kernel.shape
    if fan_in > out:  # as [k, out, k · in], whose copies fill whole vectors, too
        rows = kernel.transpose(0, 3, 1, 2).reshape(k, out, k * fan_in)
        shifts = range(0, (pixels - k + 1) * fan_in, fan_in)
        empty = (pixels - k) * fan_in
        band = jnp.concatenate([jnp.pad(rows, ((0, 0), (0, 0), (left, empty - left))) for left in shifts], 1)
        layout = "HWOI"
    else:
        band = _band(kernel.reshape(k, k * fan_in, out), pixels * fan_in, fan_in)
        layout = "HWIO"
    return jax.lax.conv_general_dilated(
        x,
        band[:, None],
        window_strides=(1, 1),
        padding=((k // 2, k // 2), (0, 0)),
        dimension_numbers=("NHWC", layout, "NHWC"),
    )


def block_diagonal(kernel: jax.Array, pixels: int) -> jax.Array:
    """Returns the matrix that multiplies each pixel of a pack by the same kernel: `[in, out]` → `[q·in, q·out]`."""
    return _band(kernel, pixels * len(kernel), len(kernel))


def _band(columns: jax.Array, height: int, step: int) -> jax.Array:
    # `[..., h, out]` → `[..., height, copies · out]`: copies of the columns, each `step` rows below the one before.
    empty = height - columns.shape[-2]
    rest = ((0, 0),) * (columns.ndim - 2)
    copies = [jnp.pad(columns, (*rest, (top, empty - top), (0, 0))) for top in range(0, empty + 1, step)]
    return jnp.concatenate(copies, -1)
