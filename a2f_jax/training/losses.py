"""Losses: functions of the result and the ground truth, `(sr, hr) -> scalar`.

Both images are float32 `[N, H, W, C]` on 0..255, with C = 3 for R, G and B. For a `LumaNetwork`, C is 1: Y, 16..235.
Gradients are averaged over devices and over the parts of a batch, all of the same size, so a loss has to be a mean over
the N images: then the average is the loss of the whole batch.
"""

import functools
import hashlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Loss = Callable[[jax.Array, jax.Array], jax.Array]

_CHARBONNIER_EPSILON = 1e-3 * 255
_FOURIER_WEIGHT = 0.05
_LONGEST_NAME = 200
_LONGEST_ARRAY = 1000  # elements


def l1(sr: jax.Array, hr: jax.Array) -> jax.Array:
    """The mean absolute error, `mean(|sr − hr|)`, with which the paper trains A2F."""
    return jnp.mean(jnp.abs(sr - hr))


def l2(sr: jax.Array, hr: jax.Array) -> jax.Array:
    """The mean squared error, `mean((sr − hr)²)`."""
    return jnp.mean((sr - hr) ** 2)


def charbonnier(sr: jax.Array, hr: jax.Array) -> jax.Array:
    """The Charbonnier loss, `mean(sqrt((sr − hr)² + ε²))`, an absolute error that is smooth at zero.

    ε is 0.001 of the range of the pixels, as in LapSRN (Lai et al., "Deep Laplacian Pyramid Networks for Fast and
    Accurate Super-Resolution", CVPR 2017), so that the loss is 255 times that on 0..1.
    """
    return jnp.mean(jnp.sqrt((sr - hr) ** 2 + _CHARBONNIER_EPSILON**2))


def fft(sr: jax.Array, hr: jax.Array) -> jax.Array:
    """The mean absolute error plus 0.05 times that of the Fourier transforms, `l1(sr, hr) + 0.05 · l1(F(sr), F(hr))`.

    F is the two-dimensional transform of each channel, without normalization, of which the half that determines a real
    image is kept (`rfft2`); its error is the mean over real and imaginary parts. This is the loss of ShuffleMixer (Sun
    et al., NeurIPS 2022) and SAFMN (Sun et al., ICCV 2023), with the weight of the latter. Both terms are proportional
    to the range of the pixels, so that the loss is 255 times that on 0..1.
    """
    difference = jnp.fft.rfft2(sr - hr, axes=(1, 2))  # the transform is linear
    error = (jnp.mean(jnp.abs(difference.real)) + jnp.mean(jnp.abs(difference.imag))) / 2
    return l1(sr, hr) + _FOURIER_WEIGHT * error


LOSSES: dict[str, Loss] = {"l1": l1, "l2": l2, "charbonnier": charbonnier, "fft": fft}
"""The losses that `config.loss` can name."""


def name_of_loss(loss: Callable[..., Any]) -> str:
    """Returns the name under which a run remembers the loss it was given, such as that of the function.

    Args:
      loss: the loss. A `functools.partial` is named after its function and its arguments. The name is the same in
        another process: it contains no addresses of objects.
    """
    if isinstance(loss, functools.partial):
        arguments = [
            *map(_shown, loss.args),
            *(f"{name}={_shown(value)}" for name, value in sorted(loss.keywords.items())),
        ]
        name = f"{name_of_loss(loss.func)}({', '.join(arguments)})"
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}... {digest}"
    return getattr(loss, "__qualname__", type(loss).__qualname__)


def _shown(value: Any) -> str:
    if isinstance(value, functools.partial) or hasattr(value, "__qualname__"):
        return name_of_loss(value)
    if any(map(_is_long, jax.tree.leaves(value))):  # such as the weights of a network
        value = jax.tree.map(lambda leaf: _Digest(leaf) if _is_long(leaf) else leaf, value)
    with np.printoptions(threshold=_LONGEST_ARRAY, floatmode="unique"):
        return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _is_long(value: Any) -> bool:
    return isinstance(value, np.ndarray | jax.Array) and value.size > _LONGEST_ARRAY


class _Digest:
    def __init__(self, array: Any):
        content = np.ascontiguousarray(array).tobytes()
        self._text = f"{array.dtype}{[*array.shape]} {hashlib.sha256(content).hexdigest()[:16]}"

    def __repr__(self) -> str:
        return self._text


def check_loss(loss: Loss, size: int, channels: int) -> None:
    """Checks that a loss can be computed and is a scalar, without computing it.

    Args:
      loss: the loss.
      size: the side of the images that it will compare, in pixels.
      channels: their number of channels.

    Raises:
      TypeError: the loss is not a function, or its result is not a floating-point scalar.
    """
    if not callable(loss):
        raise TypeError(f"loss must be a function of SR and HR, not {loss!r}: config.loss takes the name of a loss")
    image = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    kinds: list[type] = []
    arrays: list[bool] = []

    def traced(sr: jax.Array, hr: jax.Array) -> Any:
        value = loss(sr, hr)
        kinds.append(type(value))  # not the value, which JAX_CHECK_TRACER_LEAKS would report
        arrays.append(isinstance(value, jax.Array))  # which a Python number is not
        return value

    result = jax.eval_shape(traced, image, image)
    if not arrays[-1] or result.shape or not jnp.issubdtype(result.dtype, jnp.floating):
        what = f"{result.dtype} {list(result.shape)}" if arrays[-1] else kinds[-1].__name__
        raise TypeError(f"a loss must return a floating-point scalar, but {name_of_loss(loss)} returns {what}")
