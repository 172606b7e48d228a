"""Stride-1 convolution with zero padding, in the form that is fastest on the machine at hand.

Accelerators have their own convolutions and XLA calls them. On a CPU, XLA's convolution reaches about half the
speed of its matrix product, its filter gradient a third (`benchmarks/train.py`), and nearly all of A2F's work
is in the pair 3×3 n → 128 and 3×3 128 → n. So there the pair is done by matrix products, see `winograd`.
"""

import jax
import jax.numpy as jnp

from a2f_jax.models import winograd

# Below this many input × output channels the matrix products are too thin to win over XLA's convolution.
_MIN_CHANNEL_PRODUCT = 2000


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves with zero padding so that the size is kept.

    Args:
      x: `[N, H, W, in]`.
      kernel: `[k, k, in, out]` with odd k, of the same dtype as x.

    Returns:
      `[N, H, W, out]`.
    """
    k, _, fan_in, out = kernel.shape
    if jax.default_backend() == "cpu" and k == 3 and fan_in * out >= _MIN_CHANNEL_PRODUCT and x.dtype == jnp.float32:
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return winograd.convolve(padded, winograd.transform_kernel(kernel))
    return jax.lax.conv_general_dilated(
        x, kernel, window_strides=(1, 1), padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
