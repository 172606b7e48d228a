"""3×3 convolution with fewer multiplications: Winograd's minimal filtering algorithm F(4, 3) along the rows.

Four adjacent outputs of a filter with three taps take six multiplications instead of twelve (Winograd, 1980; Lavin &
Gray, "Fast Algorithms for Convolutional Neural Networks", 2016): `y = Aᵀ[(G k) ⊙ (Bᵀ d)]` for six adjacent inputs d.
The sums over the three kernel rows and the channels are matrix products, one for each of the six points. In exact
arithmetic the result equals the convolution; in float32 it differs in the sixth significant digit, too much for
narrower types. A two-dimensional algorithm would save more multiplications, but its matrix products would be too small
to be faster with A2F's channels. The gradients, which JAX derives, save as many multiplications.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_BT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
_AT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
_OUTPUTS = 4
_POINTS = 6


def transform_kernel(kernel: Any) -> Any:
    """Transforms a kernel for `convolve_valid`: float32 `[3, 3, in, out]` → `[6, 3, in, out]`, both NumPy or JAX."""
    xp = kernel.__array_namespace__()
    return xp.einsum("tj,ijco->tico", xp.asarray(_G, dtype=kernel.dtype), kernel)


def _combine(row: np.ndarray, arrays: list[jax.Array]) -> jax.Array:
    # The weighted sum of the arrays, without multiplications by 0 or ±1.
    total = None
    for factor, array in zip(row, arrays, strict=True):
        if factor:
            term = array if factor == 1 else -array if factor == -1 else float(factor) * array
            total = term if total is None else total + term
    assert total is not None
    return total


def convolve_valid(x: jax.Array, transformed: jax.Array) -> jax.Array:
    """Convolves a 3×3 kernel without padding.

    Args:
      x: float32 `[N, H, W, in]`, H and W at least 3.
      transformed: the kernel as `transform_kernel` returns it, float32 `[6, 3, in, out]`.

    Returns:
      float32 `[N, H − 2, W − 2, out]`.
    """
    n, height, width, channels = x.shape
    out = transformed.shape[-1]
    quads = -(-(width - 2) // _OUTPUTS)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, quads * _OUTPUTS + 2 - width), (0, 0)))
    taps = [x[:, :, j : j + _OUTPUTS * (quads - 1) + 1 : _OUTPUTS] for j in range(_POINTS)]
    products = []
    for point in range(_POINTS):
        d, weights = _combine(_BT[point], taps), transformed[point]
        # The three rows are combined on the side with fewer channels: gathered before the product or added after it.
        if channels < out:
            gathered = jnp.concatenate([d[:, i : i + height - 2] for i in range(3)], -1)
            product = gathered.reshape(-1, 3 * channels) @ weights.reshape(3 * channels, out)
            products.append(product.reshape(n, height - 2, quads, out))
        else:
            # The weights are the transposed side, because the product that is their gradient is half as fast with more
            # rows than columns.
            rows_of_weights = weights.transpose(0, 2, 1).reshape(3 * out, channels)
            wide = jax.lax.dot_general(d.reshape(-1, channels), rows_of_weights, (((1,), (1,)), ((), ())))
            wide = wide.reshape(n, height, quads, 3, out)
            rows = [wide[:, i : i + height - 2, :, i] for i in range(3)]
            products.append(rows[0] + rows[1] + rows[2])
    y = jnp.stack([_combine(row, products) for row in _AT], 3)
    return y.reshape(n, height - 2, quads * _OUTPUTS, out)[:, :, : width - 2]
