"""Stride-1 convolution with zero padding, directly or as Winograd's sums of matrix products.

Accelerators have their own convolutions, and XLA calls them. On a CPU, XLA's convolution reaches about half the
speed of its matrix product and its filter gradient a third (`benchmarks/train.py`), while nearly all of A2F's work
is in the pair 3×3 n → 128 and 3×3 128 → n. Winograd's form turns that pair into matrix products.

Which form to use follows from the device that a program is compiled for, which may not be the one it is traced on.
Networks therefore carry the choice as an attribute, and `prefers_winograd` makes it once.
"""

import jax
import jax.numpy as jnp

from a2f_jax.models import winograd as winograd_form

# Below this many input × output channels the matrix products are too thin to win over XLA's convolution.
_MIN_CHANNEL_PRODUCT = 2000


def prefers_winograd(platform: str, dtype: jax.typing.DTypeLike) -> bool:
    """Whether Winograd's form is the faster one.

    Args:
      platform: of the device that computes: `"cpu"`, `"gpu"` or `"tpu"`.
      dtype: of the computation. Winograd's form loses a digit, which only float32 can spare.
    """
    return platform == "cpu" and jnp.dtype(dtype) == jnp.float32


def convolve(x: jax.Array, kernel: jax.Array, *, winograd: bool = False) -> jax.Array:
    """Convolves with zero padding so that the size is kept.

    Args:
      x: `[N, H, W, in]`.
      kernel: `[k, k, in, out]` with odd k, of the same dtype as x.
      winograd: whether 3×3 kernels with many channels take Winograd's form; others are always convolved directly.

    Returns:
      `[N, H, W, out]`.
    """
    k, _, fan_in, out = kernel.shape
    if winograd and k == 3 and fan_in * out >= _MIN_CHANNEL_PRODUCT:
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return winograd_form.convolve_valid(padded, winograd_form.transform_kernel(kernel))
    return jax.lax.conv_general_dilated(
        x, kernel, window_strides=(1, 1), padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
