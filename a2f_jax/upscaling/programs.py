"""The compiled programs that process a tile, or a whole image; their shapes do not depend on the size of the image.

A tile is a square of the image. Values outside the image are kept at exactly zero, like the zero padding of the
network, so a tile may reach beyond the border and an image may be smaller than a tile, or than the canvas of `whole`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from a2f_jax.models import winograd
from a2f_jax.models.a2f import A2F, HALF_RANGE, RGB_MEAN, Attention, Params
from a2f_jax.models.layers import per_channel, pixel_shuffle

BLOCK_HALO = 2
"""Pixels that the two 3×3 convolutions of a block need on each side of a tile."""

STATES_AT_ONCE = 4
"""The number of mixed states is padded with zeros to a multiple of this, so that fewer programs are compiled."""

DEPTHS = ("uint8", "uint16", "float32")
"""The dtypes of results."""

TILES_AT_ONCE = 16
"""On an accelerator, the sums of tiles are added in groups of this size, so the same program serves every image."""


def _inside(frame: jax.Array, x: jax.Array, halo: int) -> jax.Array:
    # Returns a mask `[h, w, 1]`, where x is `[h, w, n]` including a halo: true for the pixels that lie in the image.
    top, left, height, width = frame
    rows, columns = top - halo + jnp.arange(x.shape[0]), left - halo + jnp.arange(x.shape[1])
    return (((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))[None, :])[..., None]


def _direct(x: jax.Array, kernel: jax.Array) -> jax.Array:
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x[None], kernel, (1, 1), "VALID", dimension_numbers=layout)[0]


def _winograd(x: jax.Array, transformed: jax.Array) -> jax.Array:
    return winograd.convolve_valid(x[None], transformed)[0]


def _crop(x: jax.Array, margin: int) -> jax.Array:
    return x[margin : x.shape[0] - margin, margin : x.shape[1] - margin]


def _normalized(pixels: jax.Array, frame: jax.Array, halo: int, dtype: Any) -> jax.Array:
    x = (pixels - per_channel(RGB_MEAN, pixels)) / HALF_RANGE
    return jnp.where(_inside(frame, x, halo), x, 0).astype(dtype)


def _head(weights: dict, pixels: jax.Array, frame: jax.Array, *, halo: int, dtype: Any):
    x = _normalized(pixels, frame, halo, dtype)
    kernel = weights["kernel"]
    state = _direct(_crop(x, halo - kernel.shape[0] // 2), kernel)
    return _masked_with_sums(state + per_channel(weights["bias"], state), frame)


def _masked_with_sums(state: jax.Array, frame: jax.Array) -> tuple[jax.Array, jax.Array]:
    state = jnp.where(_inside(frame, state, 0), state, 0)
    return state, state.sum((0, 1), dtype=jnp.float32)


def _residual(weights: dict, padded: jax.Array, frame: jax.Array, *, convolve: Callable) -> jax.Array:
    hidden = convolve(padded, weights["expand"])
    hidden = jax.nn.relu(hidden + per_channel(weights["expand_bias"], hidden))
    hidden = jnp.where(_inside(frame, hidden, 1), hidden, 0)
    residual = convolve(hidden, weights["reduce"])
    return residual + per_channel(weights["reduce_bias"], residual)


def _mix(weights: jax.Array, residual: jax.Array, states: Sequence[jax.Array], frame: jax.Array):
    return _masked_with_sums(residual + jnp.concatenate(states, -1) @ weights, frame)


def _mix_weights(weights: dict, sums: Sequence[jax.Array], pixels: jax.Array, *, dtype: Any) -> jax.Array:
    kernel, gain = weights["kernel"], weights["lambda_aux"]
    if "attention" in weights:
        means = jnp.stack(sums) / pixels
        mean = jnp.einsum("jc,jcd->d", means, kernel)
        gain = gain * Attention().apply({"params": weights["attention"]}, mean[None])[0]
    return (kernel * per_channel(gain, kernel) + weights["skip"]).reshape(-1, kernel.shape[-1]).astype(dtype)


def _total(sums: Sequence[jax.Array]) -> jax.Array:
    return jnp.stack(sums).sum(0)


def _tail(weights: dict, padded: jax.Array, pixels: jax.Array, frame: jax.Array, *, halo: int, scale: int, depth: str):
    x = _crop(_normalized(pixels, frame, halo, jnp.float32), halo - 1)  # the skip connection is always float32
    tail = _direct(_crop(padded, BLOCK_HALO - 1), weights["tail"]).astype(jnp.float32)
    sub_pixels = tail + _direct(x, weights["skip"]) + per_channel(weights["bias"], tail)
    sr = pixel_shuffle(sub_pixels[None], scale)[0] * HALF_RANGE + per_channel(RGB_MEAN, tail)
    finite = jnp.isfinite(sr).all()
    if depth == "float32":
        return sr, finite
    return jnp.clip(jnp.round(sr * (jnp.iinfo(depth).max / 255)), 0, jnp.iinfo(depth).max).astype(depth), finite


def _pad(x: jax.Array, margin: int) -> jax.Array:
    return jnp.pad(x, ((margin, margin), (margin, margin), (0, 0)))


def _whole(
    weights: dict, image: jax.Array, frame: jax.Array, *, halo: int, scale: int, depth: str, dtype: Any, convolve: Any
) -> tuple[jax.Array, jax.Array]:
    pixels = _pad(image.astype(jnp.float32) / (257 if image.dtype == jnp.uint16 else 1), halo)
    state, total = _head(weights["head"], pixels, frame, halo=halo, dtype=dtype)
    states, totals, count = [state], [total], (frame[2] * frame[3]).astype(jnp.float32)
    for convolutions, parts in zip(weights["convolutions"], weights["parts"], strict=True):
        residual = _residual(convolutions, _pad(state, BLOCK_HALO), frame, convolve=convolve)
        mix_weights = _mix_weights(parts, totals, count, dtype=dtype)
        state, total = _mix(mix_weights, residual, states, frame)
        states.append(state)
        totals.append(total)
    return _tail(weights["tail"], _pad(state, BLOCK_HALO), pixels, frame, halo=halo, scale=scale, depth=depth)


def surround(neighbors: Sequence[Sequence[Any]], *, halo: int, xp: Any) -> Any:
    """Surrounds a tile with the adjacent pixels of its 8 neighbors.

    Args:
      neighbors: 3 × 3 tiles `[T, T, n]`; the tile itself is in the middle.
      halo: number of pixels to take from each neighbor.
      xp: the module that computes, `numpy` or `jax.numpy`.

    Returns:
      `[T + 2 · halo, T + 2 · halo, n]`.
    """
    side = neighbors[1][1].shape[0]
    parts = slice(side - halo, side), slice(0, side), slice(0, halo)
    rows = [
        xp.concatenate([tile[rows, columns] for tile, columns in zip(line, parts, strict=True)], 1)
        for line, rows in zip(neighbors, parts, strict=True)
    ]
    return xp.concatenate(rows, 0)


# Types of the compiled programs. A `frame` is int32 (top, left, height, width): corner of the tile, size of the image.
Frame = np.ndarray | jax.Array
HeadProgram = Callable[[np.ndarray, Frame], tuple[jax.Array, jax.Array]]
ResidualProgram = Callable[[Any, Frame], jax.Array]
MixProgram = Callable[[jax.Array, jax.Array, Sequence[Any], Frame], tuple[jax.Array, jax.Array]]
TailProgram = Callable[[Any, np.ndarray, Frame], tuple[jax.Array, jax.Array]]
SurroundProgram = Callable[[Sequence[Sequence[jax.Array]]], jax.Array]
MixWeightsProgram = Callable[[Sequence[jax.Array], jax.Array], jax.Array]
TotalProgram = Callable[[Sequence[jax.Array]], jax.Array]
WholeProgram = Callable[[np.ndarray | jax.Array, Frame], tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True, eq=False)
class Programs:
    """The programs of a network, bound to its weights.

    Attributes:
      network: the network.
      folded: its parameters without weight normalization.
      head: maps (pixels, frame) to (s_0, sums of its channels); pixels is float32 `[T + 2 · halo, T + 2 · halo, 3]` on
        0..255.
      residual: for each block i, maps (s_i with `BLOCK_HALO`, frame) to λ_res · res, `[T, T, n]`.
      mix: maps (weights from `mix_weights`, λ_res · res, s_0 to s_i and padding, frame) to (s_{i+1}, sums of its
        channels).
      tail: for each dtype of the result, maps (s_L with `BLOCK_HALO`, pixels, frame) to (`[scale · T, scale · T, 3]`,
        whether all of it was finite). uint8 and uint16 use their full range; float32 is in 0..255 and not clipped.
      surround: maps a tile and its 8 neighbors to the tile with `BLOCK_HALO`, on the device.
      mix_weights_on_device: for each block i, maps (sums over the image of the channels of s_0 to s_i and zeros of the
        padding, number of pixels of the image) to what `mix_weights` returns, but on the device and in float32.
      total: adds the sums of `TILES_AT_ONCE` tiles, each float32 `[n]`.
      whole: for each dtype of the result, maps (canvas, frame) to what `tail` returns, for the whole canvas
        `[Hc, Wc, 3]`: the image, in uint8, uint16 or float32, and anything to the right of it and below.
      halo: number of pixels that `head` and `tail` need on each side of a tile.
      device: the device that holds the weights and runs the programs.
    """

    network: A2F
    folded: Params
    head: HeadProgram
    residual: Sequence[ResidualProgram]
    mix: MixProgram
    tail: Mapping[str, TailProgram]
    surround: SurroundProgram
    mix_weights_on_device: Sequence[MixWeightsProgram]
    total: TotalProgram
    whole: Mapping[str, WholeProgram]
    halo: int
    device: jax.Device

    def mix_weights(self, index: int, means: Sequence[np.ndarray]) -> jax.Array:
        """Computes the matrix that combines everything a block does outside its residual branch.

        The projection is linear, so the mean of p over the image is the projection of the means of the states. The
        attention is therefore known before the block starts, and λ_x · s_i + λ_aux · (a · p) is one matrix product.

        Args:
          index: index i of the block.
          means: the mean of each of s_0 to s_i over the image, float64 `[n]`.

        Returns:
          `[k · n, n]` in the dtype of the network, where k is i + 1 rounded up to a multiple of `STATES_AT_ONCE`; the
          rows of the padding are zero.
        """
        network, params = self.network, self.folded[f"block_{index:02d}"]
        weights = _mix_parts(network, params, index, _padded_count(index), np.float64)
        gain = weights["lambda_aux"]
        if "attention" in weights:
            mean = np.einsum("jc,jcd->d", means, weights["kernel"][: index + 1])
            gain = gain * _attention(weights["attention"], mean)
        mix = weights["kernel"] * gain + weights["skip"]
        with np.errstate(under="ignore"):  # the setting of the process may make it an error
            mix = mix.reshape(-1, network.features).astype(network.dtype)
        return jax.device_put(mix, self.device)


def _padded_count(index: int) -> int:
    return index + 1 + -(index + 1) % STATES_AT_ONCE


def _mix_parts(network: A2F, params: dict, index: int, count: int, dtype: Any) -> dict[str, Any]:
    # What a block does outside its residual branch: kernel `[count, n, n]` of the projection, its gain and its
    # attention, and skip `[count, n, n]`, which is λ_x for the newest state.
    n = network.features
    kernel, skip = np.zeros((2, count, n, n), dtype)
    skip[index] = np.eye(n) * np.asarray(params["lambda_x"], dtype)
    weights: dict[str, Any] = {"kernel": kernel, "skip": skip, "lambda_aux": np.zeros((), dtype)}
    if network.auxiliary:
        kernel[: index + 1] = np.asarray(params["projection"]["kernel"], dtype).reshape(index + 1, n, n)
        weights["lambda_aux"] = np.asarray(params["lambda_aux"], dtype)
        if network.attention:
            weights["attention"] = jax.tree.map(lambda x: np.asarray(x, dtype), params["attention"])
    return weights


def _attention(params: dict, mean: np.ndarray) -> np.ndarray:
    # The same as a2f_jax.models.a2f.Attention, in float64.
    squeeze, excite = params["squeeze"], params["excite"]
    hidden = np.maximum(mean @ squeeze["kernel"] + squeeze["bias"], 0)
    return expit(hidden @ excite["kernel"] + excite["bias"])


# On a CPU, several tiles are computed concurrently, each by a single thread, so that no thread waits for another. The
# matrix products of the YNN library would use all threads in any case: without it, an image of 320×180 pixels took 8 to
# 14 % less time on two cores.
_OPTIONS = {"cpu": {"xla_cpu_multi_thread_eigen": False, "xla_cpu_experimental_ynn_fusion_type": ""}}


@functools.cache  # models with equal networks, such as successive checkpoints of one training run, share their programs
def _compiled(function: Callable, platform: str, **static: Any) -> Callable:
    @functools.wraps(function)
    def traced(*args: Any) -> Any:
        with jax.default_matmul_precision("highest"):  # the default on accelerators multiplies float32 with fewer bits
            return function(*args, **static)

    return jax.jit(traced, compiler_options=_OPTIONS.get(platform))


def programs_of(network: A2F, folded: Params, device: jax.Device, *, put: Callable = jax.device_put) -> Programs:
    """Creates the tile programs of a network. Each is compiled when it first receives a tile of a given size.

    Args:
      network: a network without weight normalization and without depthwise projections.
      folded: its parameters, as returned by `fold_weight_norm`.
      device: the device to run on.
      put: `(arrays, device) -> arrays`, which places the weights on the device.

    Returns:
      The programs.

    Raises:
      ValueError: the network has depthwise projections, which need the neighboring pixels of every state.
    """
    if network.depthwise:
        raise ValueError("tiling does not support networks with depthwise projections")
    folded, dtype = jax.tree.map(np.asarray, folded), network.dtype
    compiled = functools.partial(_compiled, platform=device.platform)
    transform = winograd.transform_kernel if network.winograd else np.asarray

    def cast(tree: Any) -> Any:
        return put(jax.tree.map(lambda x: np.asarray(x, dtype), tree), device)

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

    skip = {"skip": folded["skip"]["kernel"], "bias": folded["tail"]["bias"] + folded["skip"]["bias"]}
    tail = {**cast({"tail": folded["tail"]["kernel"]}), **put(skip, device)}

    def parts(index: int, count: int) -> Any:
        return put(_mix_parts(network, folded[f"block_{index:02d}"], index, count, np.float32), device)

    mix_weights_on_device = compiled(_mix_weights, dtype=dtype)
    convolve = _winograd if network.winograd else _direct
    residual = compiled(_residual, convolve=convolve)
    halo = max(network.head_kernel // 2, 1)
    head = cast(folded["head"])
    blocks = [convolutions(folded[f"block_{i:02d}"]) for i in range(network.blocks)]
    everything = {
        "head": head,
        "convolutions": blocks,
        "parts": [parts(i, i + 1) for i in range(network.blocks)],
        "tail": tail,
    }
    whole = functools.partial(compiled, _whole, halo=halo, scale=network.scale, dtype=dtype, convolve=convolve)
    return Programs(
        network=network,
        folded=folded,
        head=functools.partial(compiled(_head, halo=halo, dtype=dtype), head),
        residual=[functools.partial(residual, weights) for weights in blocks],
        mix=compiled(_mix),
        tail={
            depth: functools.partial(compiled(_tail, halo=halo, scale=network.scale, depth=depth), tail)
            for depth in DEPTHS
        },
        surround=compiled(surround, halo=BLOCK_HALO, xp=jnp),
        mix_weights_on_device=[
            functools.partial(mix_weights_on_device, parts(i, _padded_count(i))) for i in range(network.blocks)
        ],
        total=compiled(_total),
        whole={depth: functools.partial(whole(depth=depth), everything) for depth in DEPTHS},
        halo=halo,
        device=device,
    )
