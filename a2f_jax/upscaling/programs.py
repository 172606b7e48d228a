"""What is computed on one tile: the compiled programs, whose shapes do not depend on the image's size.

A tile is a square of the image. Values outside the image are kept at exactly zero, as the network's zero padding
has them, so a tile may reach beyond the border and an image may be smaller than a tile.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from a2f_jax.models import winograd
from a2f_jax.models.a2f import A2F, HALF_RANGE, RGB_MEAN, Params
from a2f_jax.models.layers import pixel_shuffle

BLOCK_HALO = 2
"""How far a block's two 3×3 convolutions look beyond a tile."""

STATES_AT_ONCE = 4
"""The number of states that are mixed is rounded up to a multiple of this, with zeros: fewer programs."""


def _inside(frame: jax.Array, side: int, halo: int) -> jax.Array:
    """Which pixels of a tile with its halo lie in the image: bool `[side + 2 halo, side + 2 halo, 1]`."""
    top, left, height, width = frame
    steps = jnp.arange(-halo, side + halo)
    rows, columns = top + steps, left + steps
    return (((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))[None, :])[..., None]


def _direct(x: jax.Array, kernel: jax.Array) -> jax.Array:
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x[None], kernel, (1, 1), "VALID", dimension_numbers=layout)[0]


def _winograd(x: jax.Array, transformed: jax.Array) -> jax.Array:
    return winograd.convolve_valid(x[None], transformed)[0]


def _crop(x: jax.Array, margin: int) -> jax.Array:
    return x[margin : x.shape[0] - margin, margin : x.shape[1] - margin]


def _normalised(pixels: jax.Array, frame: jax.Array, halo: int, dtype: Any) -> jax.Array:
    x = (pixels - RGB_MEAN) / HALF_RANGE
    return jnp.where(_inside(frame, pixels.shape[0] - 2 * halo, halo), x, 0).astype(dtype)


def _head(weights: dict, pixels: jax.Array, frame: jax.Array, *, halo: int, dtype: Any):
    x = _normalised(pixels, frame, halo, dtype)
    kernel = weights["kernel"]
    state = _direct(_crop(x, halo - kernel.shape[0] // 2), kernel) + weights["bias"]
    return _masked_with_sums(state, frame)


def _masked_with_sums(state: jax.Array, frame: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A state with zeros outside the image, and the sums of its channels."""
    state = jnp.where(_inside(frame, state.shape[0], 0), state, 0)
    return state, state.sum((0, 1), dtype=jnp.float32)


def _residual(weights: dict, padded: jax.Array, frame: jax.Array, *, convolve: Callable) -> jax.Array:
    hidden = jax.nn.relu(convolve(padded, weights["expand"]) + weights["expand_bias"])
    hidden = jnp.where(_inside(frame, hidden.shape[0] - 2, 1), hidden, 0)
    return convolve(hidden, weights["reduce"]) + weights["reduce_bias"]


def _mix(weights: jax.Array, residual: jax.Array, states: Sequence[jax.Array], frame: jax.Array):
    return _masked_with_sums(residual + jnp.concatenate(states, -1) @ weights, frame)


def _tail(weights: dict, padded: jax.Array, pixels: jax.Array, frame: jax.Array, *, halo: int, scale: int, depth: str):
    x = _crop(_normalised(pixels, frame, halo, padded.dtype), halo - 1)
    sub_pixels = _direct(_crop(padded, BLOCK_HALO - 1), weights["tail"]) + _direct(x, weights["skip"]) + weights["bias"]
    sr = pixel_shuffle(sub_pixels.astype(jnp.float32)[None], scale)[0] * HALF_RANGE + RGB_MEAN
    if depth == "float32":
        return sr
    return jnp.clip(jnp.round(sr * (jnp.iinfo(depth).max / 255)), 0, jnp.iinfo(depth).max).astype(depth)


def surround(neighbours: Sequence[Sequence[Any]], *, halo: int, xp: Any) -> Any:
    """Puts the borders of the 8 neighbours around a tile.

    Args:
      neighbours: 3 × 3 tiles `[T, T, n]`, the tile itself in the middle.
      halo: how many pixels of each neighbour.
      xp: the module of the arrays, numpy or jax.numpy.

    Returns:
      `[T + 2 halo, T + 2 halo, n]`.
    """
    side = neighbours[1][1].shape[0]
    parts = slice(side - halo, side), slice(0, side), slice(0, halo)
    rows = [
        xp.concatenate([tile[rows, columns] for tile, columns in zip(line, parts, strict=True)], 1)
        for line, rows in zip(neighbours, parts, strict=True)
    ]
    return xp.concatenate(rows, 0)


# The types of the compiled programs. `frame` is int32 (top, left, height, width): the tile's corner, the image's size.
HeadProgram = Callable[[np.ndarray, np.ndarray], tuple[jax.Array, jax.Array]]
ResidualProgram = Callable[[Any, np.ndarray], jax.Array]
MixProgram = Callable[[jax.Array, jax.Array, Sequence[Any], np.ndarray], tuple[jax.Array, jax.Array]]
TailProgram = Callable[[Any, np.ndarray, np.ndarray], jax.Array]
SurroundProgram = Callable[[Sequence[Sequence[jax.Array]]], jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Programs:
    """A network's tile programs, bound to its weights.

    Attributes:
      network: the network.
      folded: its parameters, without weight normalisation.
      head: (pixels, frame) → (s_0, its channels' sums); pixels is float32 `[T + 2 halo, T + 2 halo, 3]` on 0..255.
      residual: for each block i, (s_i with `BLOCK_HALO`, frame) → λres · res, `[T, T, n]`.
      mix: (weights from `mix_weights`, λres · res, s_0 to s_i and zeros, frame) → (s_{i+1}, its channels' sums).
      tail: by the result's dtype, (s_L with `BLOCK_HALO`, pixels, frame) → `[scale · T, scale · T, 3]`; uint8 and
        uint16 use their whole range, float32 is on 0..255 and not clipped.
      surround: the 9 neighbours → the tile with `BLOCK_HALO`, on the device.
      halo: of the pixels.
      device: where the weights are and so the programs run.
    """

    network: A2F
    folded: Params
    head: HeadProgram
    residual: Sequence[ResidualProgram]
    mix: MixProgram
    tail: Mapping[str, TailProgram]
    surround: SurroundProgram
    halo: int
    device: jax.Device

    def mix_weights(self, index: int, means: Sequence[np.ndarray]) -> jax.Array:
        """Makes one matrix of all that a block does with the states beside its residual branch.

        The projection is linear: the mean of p over the image is the projection of the states' means. So the
        attention is known before the block starts, and with it λx · s_i + λaux · (a · p) is one matrix product.

        Args:
          index: i of the block.
          means: float64 `[n]` for each of s_0 to s_i, the mean over the image.

        Returns:
          `[k · n, n]`, for s_0 to s_i and zeros up to a multiple of `STATES_AT_ONCE` states.
        """
        network, params = self.network, self.folded[f"block_{index:02d}"]
        n = network.features
        mix = np.zeros((index + 1 + -(index + 1) % STATES_AT_ONCE, n, n))
        if network.auxiliary:
            kernel = np.asarray(params["projection"]["kernel"], np.float64).reshape(index + 1, n, n)
            weight = np.full(n, np.float64(params["lambda_aux"]))
            if network.attention:
                weight *= _attention(params["attention"], np.einsum("jc,jcd->d", means, kernel))
            mix[: index + 1] = kernel * weight
        mix[index] += np.eye(n) * np.float64(params["lambda_x"])
        return jax.device_put(mix.reshape(-1, n).astype(network.dtype), self.device)


def _attention(params: dict, mean: np.ndarray) -> np.ndarray:
    """Channel attention of a2f_jax.models.a2f.Attention, in float64."""
    squeeze, excite = (
        (np.asarray(params[k]["kernel"], np.float64), np.asarray(params[k]["bias"], np.float64))
        for k in ("squeeze", "excite")
    )
    hidden = np.maximum(mean @ squeeze[0] + squeeze[1], 0)
    return 1 / (1 + np.exp(-(hidden @ excite[0] + excite[1])))


@functools.cache  # models that share a network, as during training, share the programs
def _compiled(function: Callable, platform: str, **static: Any) -> Callable:
    @functools.wraps(function)
    def traced(*args: Any) -> Any:
        with jax.default_matmul_precision("highest"):  # accelerators multiply float32 with fewer bits otherwise
            return function(*args, **static)

    # On a CPU every tile is the work of one thread, and several tiles are computed at once: no barriers.
    options = {"xla_cpu_multi_thread_eigen": False} if platform == "cpu" else None
    return jax.jit(traced, compiler_options=options)


def programs_of(network: A2F, folded: Params, device: jax.Device) -> Programs:
    """Makes a network's tile programs; each is compiled when it first meets a tile size.

    Args:
      network: any but those with depthwise projections.
      folded: its parameters, see `fold_weight_norm`.
      device: where the programs run.

    Raises:
      ValueError: the network has depthwise projections, which look at the neighbours of all states.
    """
    if network.depthwise:
        raise ValueError("there are no tile programs for depthwise projections")
    folded, dtype = jax.tree.map(np.asarray, folded), network.dtype
    compiled = functools.partial(_compiled, platform=device.platform)
    transform = winograd.transform_kernel if network.winograd else np.asarray

    def cast(tree: Any) -> Any:
        return jax.device_put(jax.tree.map(lambda x: np.asarray(x, dtype), tree), device)

    def convolutions(params: dict) -> dict[str, Any]:
        gain = np.asarray(params["lambda_res"])
        return cast(
            {
                "expand": transform(params["expand"]["kernel"]),
                "expand_bias": params["expand"]["bias"],
                "reduce": transform(params["reduce"]["kernel"] * gain),
                "reduce_bias": params["reduce"]["bias"] * gain,
            }
        )

    tail = {
        "tail": folded["tail"]["kernel"],
        "skip": folded["skip"]["kernel"],
        "bias": folded["tail"]["bias"] + folded["skip"]["bias"],
    }
    residual = compiled(_residual, convolve=_winograd if network.winograd else _direct)
    halo = max(network.head_kernel // 2, 1)
    return Programs(
        network=network,
        folded=folded,
        head=functools.partial(compiled(_head, halo=halo, dtype=dtype), cast(folded["head"])),
        residual=[functools.partial(residual, convolutions(folded[f"block_{i:02d}"])) for i in range(network.blocks)],
        mix=compiled(_mix),
        tail={
            depth: functools.partial(compiled(_tail, halo=halo, scale=network.scale, depth=depth), cast(tail))
            for depth in ("uint8", "uint16", "float32")
        },
        surround=compiled(surround, halo=BLOCK_HALO, xp=jnp),
        halo=halo,
        device=device,
    )
