"""How far a network looks: found by following the NaN of one pixel through the network, whatever it consists of."""

import contextlib
import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from a2f_jax.models.layers import abstract_variables
from a2f_jax.models.nan_tracing import UntraceableError, with_surviving_nan
from a2f_jax.models.network_key import NetworkKey

_LENGTHS = (64, 256)
"""Lengths in LR pixels of the strips that are tried. A network that looks farther is taken to look everywhere."""

_PHASES = 8
"""Number of adjacent pixels from which the NaN starts, so that it meets a grid of up to this many pixels everywhere."""

_ROUNDING = 1e-3
"""Difference, relative to the largest value, up to which two results count as the same."""


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
      the image begins elsewhere, as do coordinates that it adds. None, too, if it has operations on booleans or
      integers that cannot be followed, takes no image of `smallest` by 64 pixels, or overflows with random weights.
    """
    return _reach(NetworkKey(network))


@functools.cache
def _reach(key: NetworkKey) -> int | None:
    network = key.network
    plain = {name: False for name in ("weight_norm", "winograd") if hasattr(network, name)}
    if plain:  # the norm of zeros is no divisor, and Winograd's algorithm mixes pixels that do not belong together
        network = network.clone(**plain)
    try:
        rows = _reach_along(network, 0)
        columns = None if rows is None else _reach_along(network, 1)
    except (UntraceableError, TypeError, ValueError):  # or the network takes no strips, such as one of windows of 8×8
        return None
    return None if rows is None or columns is None else max(rows, columns)


def _reach_along(network: Any, axis: int) -> int | None:
    for length in _LENGTHS:
        ends = np.array([0, length - 1])
        from_first, from_last = _touched(_Strips(network, axis, length, len(ends)), ends)
        if not from_first[-1] and not from_last[0]:
            break
    else:
        return None
    after, before = from_first.nonzero()[0].max(), length - 1 - from_last.nonzero()[0].min()
    # From the middle of a strip, at every phase of a grid.
    length = 2 * int(max(after, before)) + 2 * _PHASES
    strips = _Strips(network, axis, length, _PHASES)
    starts = (length - _PHASES) // 2 + np.arange(_PHASES)
    distances = {tuple(row.nonzero()[0] - start) for row, start in zip(_touched(strips, starts), starts, strict=True)}
    if len(distances) > 1:
        return None
    (around,) = distances
    farthest = int(max(-around[0], around[-1]))
    return farthest if _treats_positions_alike(strips, farthest) else None


class _Strips:
    """A network, compiled for strips of an image along one axis."""

    def __init__(self, network: Any, axis: int, length: int, count: int):
        self.axis = axis
        # Strips take little work. The other axis only has to be as long as the network needs it.
        breadth = getattr(network, "smallest", 1)
        self.shape = (count, length, breadth, 3)
        # NaN is no mistake here, and a program of many operations takes seconds if they are compiled one by one.
        with self._settings():
            sides = (length, breadth) if axis == 0 else (breadth, length)
            lr = jax.ShapeDtypeStruct((count, *sides, 3), np.float32)
            self.variables = abstract_variables(network, 1, *lr.shape[1:])
            lowered = jax.jit(with_surviving_nan(network.apply)).lower(self.variables, lr)
            # To optimize the program takes longer than to run it, except for convolutions that spread their input.
            spreads = re.search(r"lhs_dilate = \[(?!1, 1\])", lowered.as_text())
            options: dict[str, Any] = {} if spreads else {"xla_backend_optimization_level": 0}
            self._program = lowered.compile(compiler_options=options)

    def _turned(self, image: np.ndarray) -> np.ndarray:
        return image if self.axis == 0 else image.swapaxes(1, 2)

    @contextlib.contextmanager
    def _settings(self) -> Iterator[None]:
        with jax.default_device(_exact_device()), jax.debug_nans(False), jax.disable_jit(False):
            yield

    def __call__(self, draw: Callable[[tuple[int, ...]], np.ndarray], lr: np.ndarray) -> np.ndarray:
        """Returns the result for `lr`, `[N, length, smallest, 3]`, by LR pixels: `[N, length, values of each]`.

        Args:
          draw: the values of a variable of a shape.
          lr: the images.
        """
        with self._settings():
            variables = jax.tree.map(lambda x: jnp.asarray(draw(x.shape), x.dtype), self.variables)
            sr = self._turned(np.asarray(self._program(variables, self._turned(lr))))
        return sr.reshape(*self.shape[:2], -1)


def _touched(strips: _Strips, starts: np.ndarray) -> np.ndarray:
    """Returns which rows of the result, `[N, length]` in LR pixels, are NaN when row `starts[n]` of the input is."""
    lr = np.zeros(strips.shape, np.float32)
    lr[np.arange(len(starts)), starts, 0] = np.nan
    return np.isnan(strips(np.zeros, lr)).any(-1)


def _treats_positions_alike(strips: _Strips, margin: int) -> bool:
    """Returns whether the same pixels give the same result at several positions, `margin` pixels from the borders."""
    rng = np.random.default_rng(0)

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        # Kernels that keep the size of the values; everything else is positive, as a variance has to be.
        return rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape) if len(shape) > 1 else rng.uniform(0.5, 1, shape)

    count, length = strips.shape[:2]
    # Dark, so that a skip connection does not hide what the layers add.
    image = rng.uniform(0, 1, (length + count - 1, *strips.shape[2:])).astype(np.float32)
    sr = strips(draw, np.stack([image[n : n + length] for n in range(count)]))
    common = range(count - 1 + margin, length - margin)
    same = np.stack([sr[n, common[0] - n : common[-1] + 1 - n] for n in range(count)])
    # Of a network that overflows with these weights, nothing can be said.
    return bool(np.isfinite(sr).all() and np.ptp(same, axis=0).max() <= _ROUNDING * np.abs(sr).max())


def _exact_device() -> jax.Device:
    # Convolutions on a GPU may use Fourier transforms, which spread a NaN.
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS names other platforms only
        return jax.local_devices()[0]
