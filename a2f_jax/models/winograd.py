"""3×3 convolution with fewer multiplications: Winograd's minimal filtering F(4, 3) along the rows.

Four neighbouring outputs of a filter with three taps need six products instead of twelve (Lavin & Gray, "Fast
Algorithms for Convolutional Neural Networks", 2016, from Winograd, 1980): `y = Aᵀ[(G k) ⊙ (Bᵀ d)]` for six
neighbouring inputs d. The sums over the three rows and the channels are matrix products, one for each of the six
points. In exact arithmetic the result is that of the convolution; in float32 it differs in the sixth digit, so
only float32 uses it. Nested in two dimensions it would save more products, but these become too thin for A2F's
channels to gain anything. The gradients, which JAX derives, save as many products.
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
    """Applies G for `convolve_valid`: float32 `[3, 3, in, out]`, of NumPy or JAX → `[6, 3, in, out]` of the same."""
    xp = kernel.__array_namespace__()
    return xp.einsum("tj,ijco->tico", xp.asarray(_G, dtype=kernel.dtype), kernel)


def _combine(row: np.ndarray, arrays: list[jax.Array]) -> jax.Array:
    """The sum of arrays with small integer factors, written so that no product by 0 or ±1 is left."""
    total = None
    for factor, array in zip(row, arrays, strict=True):
        if factor:
            term = array if factor == 1 else -array if factor == -1 else float(factor) * array
            total = term if total is None else total + term
    assert total is not None
    return total


def convolve_valid(x: jax.Array, transformed: jax.Array) -> jax.Array:
    """Convolves without padding.

    Args:
      x: float32 `[N, H, W, in]`.
      transformed: see `transform_kernel`.

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
        # The three rows are gathered before the product or added after it, on the side with fewer channels.
        if channels < out:
            gathered = jnp.concatenate([d[:, i : i + height - 2] for i in range(3)], -1)
            product = gathered.reshape(-1, 3 * channels) @ weights.reshape(3 * channels, out)
            products.append(product.reshape(n, height - 2, quads, out))
        else:
            wide = d.reshape(-1, channels) @ weights.transpose(1, 0, 2).reshape(channels, 3 * out)
            wide = wide.reshape(n, height, quads, 3, out)
            rows = [wide[:, i : i + height - 2, :, i] for i in range(3)]
            products.append(rows[0] + rows[1] + rows[2])
    y = jnp.stack([_combine(row, products) for row in _AT], 3)
    return y.reshape(n, height - 2, quads * _OUTPUTS, out)[:, :, : width - 2]
