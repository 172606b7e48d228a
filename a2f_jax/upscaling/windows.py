"""Exact tiling of networks that do not look at the whole image: overlapping windows, each computed as an image.

A pixel of the result depends only on the LR pixels within the reach of the network. A window that extends that far
beyond its tile, or to the border of the image, therefore gives the tile as the whole image does, with the padding that
the network has at the border. All windows of an image have the same size, so that one compiled program computes them:
those at the border are moved inward instead of being cut off.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from a2f_jax.errors import UserError
from a2f_jax.files import format_bytes
from a2f_jax.models.a2f import Params
from a2f_jax.models.layers import abstract_variables, check_result
from a2f_jax.models.network_key import NetworkKey
from a2f_jax.models.receptive_field import reach
from a2f_jax.upscaling.plan import RUNTIME, Plan
from a2f_jax.upscaling.tiles import Progress, cut, require_finite

_SIDES = (1024, 512, 256, 128, 64, 32)
"""Sides of tiles in LR pixels, the largest of which that fits into memory is used: the overlap is computed twice."""

_PROGRAMS = 8
"""The number of compiled programs, each for one size of windows, that are kept."""

_Span = tuple[int, int, int]  # where a window begins, and where the tile inside it begins and ends


def quantize(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Converts pixels to integers.

    Args:
      pixels: float32 in 0..255.
      dtype: uint8, uint16 or float32.

    Returns:
      The pixels on the full range of the integer type, rounded to nearest and clipped; float32 is returned unchanged.
    """
    if dtype == np.float32:
        return pixels
    levels = np.iinfo(dtype).max
    return np.clip(np.rint(pixels * (levels / 255)), 0, levels).astype(dtype)


@functools.lru_cache(_PROGRAMS)
def _compiled(key: NetworkKey, device: jax.Device, height: int, width: int) -> Any:
    # Models with equal networks, such as successive checkpoints of one training run, share the programs. Each program
    # is compiled from a function of its own: JAX frees none of the programs of a function that still exists.
    network = key.network
    program = jax.jit(lambda params, lr: network.apply({"params": params}, lr))

    def on_device(shape: Sequence[int]) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, np.float32, sharding=jax.sharding.SingleDeviceSharding(device))

    params = abstract_variables(network, 1, height, width, 3)["params"]
    # The default on accelerators multiplies float32 with fewer bits. Nothing can be compiled while JAX is told to run
    # operations one by one, as for debugging.
    with jax.default_matmul_precision("highest"), jax.disable_jit(False):
        lowered = program.lower(jax.tree.map(lambda x: on_device(x.shape), params), on_device((1, height, width, 3)))
        check_result(network, height, width, lowered.out_info)
        return lowered.compile()


def _spans(size: int, side: int, overlap: int) -> list[_Span]:
    window = min(size, side + 2 * overlap)
    spans, first = [], 0
    while first < size:
        start = min(max(first - overlap, 0), size - window)
        end = size if start + window == size else start + window - overlap
        spans.append((start, first, end))
        first = end
    return spans


class Windows:
    """A network, computed whole or in windows."""

    def __init__(self, network: Any, folded: Params, device: jax.Device):
        """Initializes the windows; a program is compiled for each size that is needed.

        Args:
          network: a module with the attribute `scale`, without weight normalization.
          folded: its parameters.
          device: the device to compute on.
        """
        self._network, self._params, self._device = network, folded, device
        self._bytes_per_pixel = 0.0

    @functools.cached_property
    def _folded(self) -> Params:
        return jax.device_put(self._params, self._device)

    @property
    def whole_only(self) -> bool:
        """Whether the network cannot be computed in windows, because it looks at the whole image."""
        return reach(self._network) is None

    def _overlap(self, height: int, width: int, side: int) -> int:
        # Not computed for what is a single window anyway.
        return 0 if side >= max(height, width) else reach(self._network) or max(height, width)

    def plan(
        self, height: int, width: int, *, memory: int, side: int | None = None, reserved: int = 0, concurrent: int = 1
    ) -> Plan:
        """Chooses the size of the tiles.

        Args:
          height: height of the input image in pixels.
          width: width of the input image in pixels.
          memory: memory budget in bytes. It covers the device's memory; on a CPU, it covers the whole process.
          side: side of a tile in pixels; None computes the image whole if it fits, and otherwise in the largest tiles
            that do.
          reserved: bytes of host memory that hold input and output during the computation.
          concurrent: number of upscalers that run at the same time and share the memory of the host.

        Returns:
          The plan. The network is computed whole if `side` is not less than both sides of the image.

        Raises:
          UserError: the image is smaller than the network allows, or the memory budget is too small.
        """
        smallest = getattr(self._network, "smallest", 1)
        if min(height, width) < smallest:
            raise UserError(f"{width}×{height} pixels are too few: this network needs at least {smallest}×{smallest}")
        on_cpu = self._device.platform == "cpu"

        def needed(side: int) -> int:
            program = self._needed(height, width, side, memory)
            # The tiles of a strip, and the strip that is made of them.
            strip = 2 * 12 * self._network.scale**2 * min(side, height) * width if side < height else 0
            return RUNTIME + concurrent * (program + strip + reserved) if on_cpu else program

        whole = max(height, width)
        if side is not None and not (side < whole and self.whole_only):
            least = needed(side)
            if least <= memory:
                return Plan(side)
        else:
            least = needed(whole)
            if least <= memory:
                return Plan(whole)
            if self.whole_only:
                raise UserError(
                    f"an image of {width}×{height} pixels needs {format_bytes(least)}, because this network looks at "
                    f"all of it at once, and the limit is {format_bytes(memory)}: allow more memory, or upscale parts "
                    "of the image",
                    parameter="memory",
                )
            for fitting in (each for each in _SIDES if each < whole):
                least = needed(fitting)
                if least <= memory:
                    return Plan(fitting)
        raise UserError(
            f"{format_bytes(memory)} of memory is too little for {width}×{height} pixels: at least "
            f"{format_bytes(least)} is needed",
            parameter="memory",
        )

    def _needed(self, height: int, width: int, side: int, memory: int) -> int:
        """Returns the bytes that a window takes, by an estimate if that already exceeds the memory by far."""
        overlap = self._overlap(height, width, side)
        rows, columns = (min(size, side + 2 * overlap) for size in (height, width))
        estimate = int(self._bytes_per_pixel * rows * columns)
        if estimate > 2 * memory:
            return estimate
        if (analysis := _compiled(NetworkKey(self._network), self._device, rows, columns).memory_analysis()) is None:
            return 0  # not every backend tells
        total = analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes
        self._bytes_per_pixel = (total - analysis.argument_size_in_bytes) / (rows * columns)
        return total

    def tile_count(self, height: int, width: int, plan: Plan) -> int:
        """Returns the number of windows that `strips` computes for an image of `height` × `width` pixels."""
        overlap = self._overlap(height, width, plan.side)
        return len(_spans(height, plan.side, overlap)) * len(_spans(width, plan.side, overlap))

    def strips(
        self, image: np.ndarray, plan: Plan, depth: str, progress: Progress, margin: int = 0
    ) -> Iterator[np.ndarray]:
        """Upscales an image and yields the result in horizontal strips.

        Args:
          image: `[H, W, 3]`, uint8 or float32 in 0..255, or uint16 in 0..65535.
          plan: the size of the tiles.
          depth: dtype of the result. `"uint8"` and `"uint16"` are rounded and use their full range; `"float32"` is on
            0..255 and neither clipped nor rounded.
          progress: called with 1 after each window.
          margin: pixels by which the image is reflected at each border before it is upscaled. They are cut off from
            the result.

        Yields:
          Strips `[h, scale · W, 3]` from top to bottom.

        Raises:
          UserError: the result is not finite.
        """
        height, width = (size + 2 * margin for size in image.shape[:2])
        scale, overlap = self._network.scale, self._overlap(height, width, plan.side)
        window = [min(size, plan.side + 2 * overlap) for size in (height, width)]
        program = _compiled(NetworkKey(self._network), self._device, *window)
        columns = _spans(width, plan.side, overlap)
        for start, top, bottom in _spans(height, plan.side, overlap):
            parts = []
            for start_x, left, right in columns:
                pixels = cut(image, start - margin, start_x - margin, *window)
                with jax.disable_jit(False):
                    sr = np.asarray(program(self._folded, jax.device_put(pixels[None], self._device))[0])
                require_finite(np.isfinite(sr).all())
                tile = sr[scale * (top - start) : scale * (bottom - start)]
                tile = tile[:, scale * (left - start_x) : scale * (right - start_x)]
                parts.append(quantize(tile, np.dtype(depth)))
                progress(1)
            first, last = max(margin - top, 0), min(height - margin, bottom) - top
            if first < last:
                strip = np.concatenate(parts, 1)
                yield strip[scale * first : scale * last, scale * margin : scale * (width - margin)]
