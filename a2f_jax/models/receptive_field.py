"""How far a network looks: found by following the NaN of one pixel through the network, whatever it consists of."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from a2f_jax.models.layers import abstract_variables
from a2f_jax.models.nan_tracing import UntraceableError, with_surviving_nan

_LENGTHS = (64, 256)
"""Lengths in LR pixels of the strips that are tried. A network that looks farther is taken to look everywhere."""

_PHASES = 8
"""Number of adjacent pixels from which the NaN starts, so that it meets a grid of up to this many pixels everywhere."""


@functools.cache
def reach(network: Any) -> int | None:
    """Returns how many LR pixels away from its own position a pixel of the result depends on the input.

    A network computes NaN wherever it uses an input that is NaN, even if it multiplies it by zero. The pixels of the
    result that become NaN are therefore those that depend on the pixel that was NaN, for any weights; here they are
    all zero. The receptive field is at most 2 · reach + 1 LR pixels wide.

    Args:
      network: a module with the attribute `scale`, such as those of `a2f_jax.models.registry`.

    Returns:
      The larger of the distances in both directions of both axes. None if the network looks at the whole image, or
      does not treat all positions alike: where it reduces the image by strides, the same pixels give other values when
      the image begins elsewhere. None, too, if it has operations on booleans or integers that cannot be followed.
    """
    plain = {name: False for name in ("weight_norm", "winograd") if hasattr(network, name)}
    if plain:  # the norm of zeros is no divisor, and Winograd's algorithm mixes pixels that do not belong together
        network = network.clone(**plain)
    try:
        rows = _reach_along(network, 0)
        columns = None if rows is None else _reach_along(network, 1)
    except UntraceableError:
        return None
    return None if rows is None or columns is None else max(rows, columns)


def _reach_along(network: Any, axis: int) -> int | None:
    for length in _LENGTHS:
        from_first, from_last = _touched(network, axis, length, np.array([0, length - 1]))
        if not from_first[-1] and not from_last[0]:
            break
    else:
        return None
    after, before = from_first.nonzero()[0].max(), length - 1 - from_last.nonzero()[0].min()
    # From the middle of a strip, at every phase of a grid.
    length = 2 * int(max(after, before)) + 2 * _PHASES
    starts = (length - _PHASES) // 2 + np.arange(_PHASES)
    distances = {
        tuple(row.nonzero()[0] - start)
        for row, start in zip(_touched(network, axis, length, starts), starts, strict=True)
    }
    if len(distances) > 1:
        return None
    (around,) = distances
    return int(max(-around[0], around[-1]))


def _touched(network: Any, axis: int, length: int, starts: np.ndarray) -> np.ndarray:
    """Returns which rows of the result, `[N, length]` in LR pixels, are NaN when row `starts[n]` of the input is."""
    # Strips take little work. The other axis only has to be as long as the network needs it.
    lr = np.zeros((len(starts), length, getattr(network, "smallest", 1), 3), np.float32)
    lr[np.arange(len(starts)), starts, 0] = np.nan
    lr = lr if axis == 0 else lr.swapaxes(1, 2)
    # NaN is no mistake here, and a program of many operations takes seconds if they are compiled one by one.
    with jax.default_device(_exact_device()), jax.debug_nans(False), jax.disable_jit(False):
        shapes = abstract_variables(network, 1, *lr.shape[1:])
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        lowered = jax.jit(with_surviving_nan(network.apply)).lower(zeros, lr)
        # To optimize the program takes longer than to run it, except for convolutions that spread their input.
        spreads = re.search(r"lhs_dilate = \[(?!1, 1\])", lowered.as_text())
        options: dict[str, Any] = {} if spreads else {"xla_backend_optimization_level": 0}
        sr = np.asarray(lowered.compile(compiler_options=options)(zeros, lr))
    sr = sr if axis == 0 else sr.swapaxes(1, 2)
    return np.isnan(sr).reshape(len(starts), length, -1).any(-1)


def _exact_device() -> jax.Device:
    # Convolutions on a GPU may use Fourier transforms, which spread a NaN.
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS names other platforms only
        return jax.local_devices()[0]
