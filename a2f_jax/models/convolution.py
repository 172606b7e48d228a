"""Stride-1 convolution with zero padding, computed directly or by Winograd's algorithm.

On accelerators XLA calls optimized convolution kernels. On a CPU its convolution reaches about half the throughput of
its matrix product, and the gradient of the kernel a third (`benchmarks/train.py`), while A2F spends nearly all its
time in the pairs of 3×3 convolutions n → 128 → n. Winograd's algorithm turns these into matrix products.

The faster algorithm depends on the device that a program is compiled for, which may differ from the device on which it
is traced. The choice is therefore an attribute of the network, made once with `prefers_winograd`.
"""

import jax
import jax.numpy as jnp

from a2f_jax.models import winograd as winograd_form

# With fewer input × output channels, the matrix products are too small to be faster than XLA's convolution. A little
# above, the forward pass is as fast as that, and the gradients are several times faster: on 16 patches of 48×48, both
# took 8 ms instead of 26 for 16 → 48 channels, the tail of SD ×4, and 7 ms instead of 30 for 16 → 27 (two cores). For
# 16 → 12, the forward pass took a third longer, and the gradients gained nothing.
_MIN_CHANNEL_PRODUCT = 400


def prefers_winograd(platform: str, dtype: jax.typing.DTypeLike) -> bool:
    """Returns whether Winograd's algorithm is faster than a direct convolution, and precise enough.

    Args:
      platform: the platform of the device that computes: `"cpu"`, `"gpu"` or `"tpu"`.
      dtype: the computation dtype. Winograd's algorithm costs about one decimal digit, so it needs float32.
    """
    return platform == "cpu" and jnp.dtype(dtype) == jnp.float32


def convolve(x: jax.Array, kernel: jax.Array, *, winograd: bool = False) -> jax.Array:
    """Convolves with stride 1 and zero padding, which keeps height and width.

    Args:
      x: `[N, H, W, in]`.
      kernel: `[k, k, in, out]` with odd k, of the same dtype as `x`.
      winograd: whether to use Winograd's algorithm for 3×3 kernels with many channels. Other kernels are always
        convolved directly.

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
