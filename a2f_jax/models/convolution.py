"""Stride-1 convolution with zero padding, in the form that is fastest on the machine at hand.

Accelerators have their own convolutions and XLA calls them. On a CPU, XLA's convolution reaches about half the
speed of its matrix product, its filter gradient a third (`benchmarks/train.py`), and nearly all of A2F's work
is in the pair 3×3 n → 128 and 3×3 128 → n. So there the pair is written as one matrix product each, around
whichever side has fewer channels:

- few → many channels: gather the 9 shifted copies of the input (k² · in columns), then multiply;
- many → few channels: multiply first (k² · out columns), then add the 9 shifted parts.

The gradient of the one is the other. All forms compute the same sums in another order.
"""

import functools

import jax
import jax.numpy as jnp

# Below this many input × output channels the matrix product is too thin to win over XLA's convolution.
_MIN_CHANNEL_PRODUCT = 2000


def _shifts(kernel: jax.Array) -> list[tuple[int, int]]:
    return [(i, j) for i in range(kernel.shape[0]) for j in range(kernel.shape[1])]


def _padded(x: jax.Array, kernel: jax.Array) -> jax.Array:
    h, w = (size // 2 for size in kernel.shape[:2])
    return jnp.pad(x, ((0, 0), (h, h), (w, w)) + ((0, 0),) * (x.ndim - 3))


def _columns(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The neighbourhood of every pixel: `[N, H, W, c]` → `[N·H·W, k·k·c]`."""
    n, h, w, c = x.shape
    padded = _padded(x, kernel)
    copies = [padded[:, i : i + h, j : j + w] for i, j in _shifts(kernel)]
    return jnp.concatenate(copies, -1).reshape(n * h * w, len(copies) * c)


def _transposed(kernel: jax.Array) -> jax.Array:
    """The kernel of the gradient with respect to the input: mirrored, input and output exchanged."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _gather_multiply(x: jax.Array, kernel: jax.Array) -> jax.Array:
    out = kernel.shape[-1]
    return (_columns(x, kernel) @ kernel.reshape(-1, out)).reshape(*x.shape[:3], out)


def _multiply_scatter(x: jax.Array, kernel: jax.Array) -> jax.Array:
    n, h, w, c = x.shape
    taps = _shifts(kernel)
    weights = jnp.concatenate([kernel[i, j] for i, j in taps], -1)
    parts = _padded((x.reshape(-1, c) @ weights).reshape(n, h, w, len(taps), -1), kernel)
    return functools.reduce(jnp.add, (parts[:, i : i + h, j : j + w, t] for t, (i, j) in enumerate(taps)))


@jax.custom_vjp
def _widen(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _gather_multiply(x, kernel)


def _widen_forward(x: jax.Array, kernel: jax.Array):
    return _gather_multiply(x, kernel), (x, kernel)


def _widen_backward(residuals, dy: jax.Array):
    x, kernel = residuals
    # The columns are gathered again: keeping them would take nine times the memory of x.
    dkernel = _columns(x, kernel).T @ dy.reshape(-1, dy.shape[-1])
    return _multiply_scatter(dy, _transposed(kernel)), dkernel.reshape(kernel.shape)


_widen.defvjp(_widen_forward, _widen_backward)


@jax.custom_vjp
def _narrow(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _multiply_scatter(x, kernel)


def _narrow_forward(x: jax.Array, kernel: jax.Array):
    return _multiply_scatter(x, kernel), (x, kernel)


def _narrow_backward(residuals, dy: jax.Array):
    x, kernel = residuals
    k, _, fan_in, out = kernel.shape
    columns = _columns(dy, kernel)
    dx = (columns @ _transposed(kernel).reshape(-1, fan_in)).reshape(x.shape)
    mirrored = (x.reshape(-1, fan_in).T @ columns).reshape(fan_in, k, k, out)
    return dx, mirrored[:, ::-1, ::-1].transpose(1, 2, 0, 3)


_narrow.defvjp(_narrow_forward, _narrow_backward)


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves with zero padding so that the size is kept.

    Args:
      x: `[N, H, W, in]`.
      kernel: `[k, k, in, out]` with odd k, of the same dtype as x.

    Returns:
      `[N, H, W, out]`.
    """
    k, _, fan_in, out = kernel.shape
    if jax.default_backend() == "cpu" and k > 1 and fan_in * out >= _MIN_CHANNEL_PRODUCT:
        return _widen(x, kernel) if fan_in < out else _narrow(x, kernel)
    return jax.lax.conv_general_dilated(
        x, kernel, window_strides=(1, 1), padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
