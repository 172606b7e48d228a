"""The upscaler: takes an image of any size as an array and returns it upscaled, whole or in strips."""

import functools
import threading
from collections.abc import Iterator
from typing import Any, Literal, get_args

import jax
import numpy as np

from a2f_jax.errors import UserError
from a2f_jax.files import format_bytes
from a2f_jax.models.a2f import A2F, Params
from a2f_jax.progress import say
from a2f_jax.upscaling import tiles
from a2f_jax.upscaling.plan import RUNTIME, Plan, default_memory, make_plan
from a2f_jax.upscaling.programs import programs_of
from a2f_jax.upscaling.tiles import Progress

SMALLEST_TILE = 32
"""Smallest tile side, in pixels, to fall back to when a device runs out of memory."""

Edge = Literal["zero", "reflect"]
"""What the network sees beyond the border of an image."""

REFLECTED = 16
"""Pixels that are mirrored at each border with `edge="reflect"`, enough for the effect of the zero padding to fade."""

_PLACES = {"device": "device memory", "host": "host memory", "disk": "a temporary file"}

_FLIPS = [(transpose, y, x) for transpose in (False, True) for y in (1, -1) for x in (1, -1)]

_ROWS = 256
"""Rows of an ensemble that are rounded at a time."""


@functools.partial(jax.jit, static_argnums=0)
def _apply(network: Any, params: Params, lr: jax.Array) -> jax.Array:
    return network.apply({"params": params}, lr)


def _flip(image: np.ndarray, transpose: bool, y: int, x: int) -> np.ndarray:
    return (image.swapaxes(0, 1) if transpose else image)[::y, ::x]


def _check(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype not in (np.uint8, np.uint16, np.float32):
        raise ValueError(f"expected uint8, uint16 or float32 [H, W, 3], got {image.dtype} {list(image.shape)}")
    if not image.size:
        raise ValueError(f"expected an image with at least one pixel, got {list(image.shape)}")
    if image.dtype == np.float32 and not np.isfinite([image.min(), image.max()]).all():
        raise ValueError("the image contains NaN or infinity")


class _Meter:
    # Reports the progress of several attempts at one image, with tiles of different sizes, as that of the first.

    def __init__(self, progress: Progress, total: int):
        self._progress, self._total = progress, total
        self._reported = 0
        self._lock = threading.Lock()  # tiles are computed by several threads

    def attempt(self, total: int) -> Progress:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            with self._lock:
                done += count
                new = max(0, done * self._total // total - self._reported)
                self._reported += new
            self._progress(new)  # also without progress, since it may interrupt the computation

        return advance


class Upscaler:
    """Upscales images of any size exactly and in bounded memory; a few compiled programs serve all sizes."""

    def __init__(
        self,
        network: A2F,
        folded: Params,
        *,
        memory: int | None = None,
        disk: int | None = None,
        tile: int | None = None,
        ensemble: bool = False,
        edge: Edge = "zero",
        device: jax.Device | None = None,
        concurrent: int = 1,
        verbose: bool = False,
    ):
        """Initializes the upscaler; its programs are compiled when they are first needed.

        Args:
          network: a network without weight normalization, such as `Model.inference_network`.
          folded: its parameters, such as `Model.folded`.
          memory: memory budget in bytes. It covers the device's memory; on a CPU, it covers the whole process. The
            default is three quarters of what is free.
          disk: largest size in bytes of the temporary file that is used when the memory is not sufficient. The default
            is 16 GB, or half of the free space if that is less.
          tile: side of a tile in pixels. The default depends on the memory budget and the device.
          ensemble: whether to average the results of the 8 flips and transpositions of the image ("A2F+" in papers),
            which takes 8 times as long.
          edge: what the network sees beyond the border of the image. `"zero"`, as in the paper, is the zero padding of
            its convolutions. It suits photographs, but shows where flat, saturated colors reach the border. `"reflect"`
            mirrors 16 pixels of the image at each border and cuts them off again.
          device: the device to run on. The default is JAX's first local device.
          concurrent: number of upscalers that run at the same time, one on each device, and share the memory of the
            host.
          verbose: whether to print to standard error how each image is computed.

        Raises:
          ValueError: `edge` has another value, or `tile` is less than 1.
        """
        if edge not in get_args(Edge):
            raise ValueError(f"edge is {edge!r}, but must be one of {', '.join(get_args(Edge))}")
        if tile is not None and tile < 1:
            raise ValueError(f"tile is {tile}, but must be at least 1")
        self.network = network
        self.device = device or jax.local_devices()[0]
        self.memory = memory
        self.disk = disk
        self.tile = tile
        self.ensemble = ensemble
        self.edge = edge
        self.concurrent = concurrent
        self.verbose = verbose
        self._margin = REFLECTED if edge == "reflect" else 0
        tiled = isinstance(network, A2F) and not network.depthwise
        self._programs = programs_of(network, folded, self.device) if tiled else None
        self._folded = None if tiled else jax.device_put(folded, self.device)

    @property
    def scale(self) -> int:
        """The upscaling factor."""
        return self.network.scale

    def upscale(self, image: np.ndarray, *, progress: Progress = lambda _: None) -> np.ndarray:
        """Upscales one image.

        Args:
          image: `[H, W, 3]`, RGB; uint8, uint16 (0..65535) or float32 in 0..255.
          progress: called with the number of tile programs that have run since the previous call.

        Returns:
          `[scale · H, scale · W, 3]` of the same dtype. Integers are rounded to nearest and clipped; float32 is neither
          rounded nor clipped.

        Raises:
          ValueError: the image has another shape or dtype, or is not finite.
          UserError: the memory budget, or the free disk space for the states, is too small; or the result is not
            finite, most likely because of damaged weights.
        """
        _check(image)
        height, width = (side * self.scale for side in image.shape[:2])
        out = np.empty((height, width, 3), image.dtype)
        row = 0
        for strip in self.strips(image, reserved=image.nbytes + out.nbytes, progress=progress):
            out[row : row + len(strip)] = strip
            row += len(strip)
        return out

    def strips(
        self,
        image: np.ndarray,
        *,
        dtype: np.dtype | None = None,
        reserved: int | None = None,
        images: int = 1,
        progress: Progress = lambda _: None,
    ) -> Iterator[np.ndarray]:
        """Upscales one image and yields the result in horizontal strips, so that it need not fit into memory.

        Args:
          image: `[H, W, 3]`, RGB; uint8, uint16 (0..65535) or float32 in 0..255.
          dtype: dtype of the result: uint8, uint16 or float32. The default is that of the image.
          reserved: bytes of host memory that hold input and output during the computation. The default is the size of
            the input.
          images: number of images of this size that are upscaled in turn, strip by strip.
          progress: called with the number of tile programs that have run since the previous call.

        Yields:
          Strips `[h, scale · W, 3]` from top to bottom. Integers are rounded to nearest and clipped; float32 is neither
          rounded nor clipped.

        Raises:
          ValueError: the image has another shape or dtype, or is not finite.
          UserError: the memory budget, or the free disk space for the states, is too small; or the result is not
            finite, most likely because of damaged weights.
        """
        _check(image)
        height, width = image.shape[:2]
        depth = np.dtype(dtype or image.dtype)
        plan = self.plan(height, width, image.nbytes if reserved is None else reserved, images)
        if not self.ensemble:
            yield from self._one(image, depth.name, plan, progress)
            return
        total = np.zeros((self.scale * height, self.scale * width, 3), np.float32)
        for flip in _FLIPS:
            row, view = 0, _flip(total, *flip)
            for strip in self._one(_flip(image, *flip), "float32", plan, progress):
                view[row : row + len(strip)] += strip
                row += len(strip)
        for row in range(0, len(total), _ROWS):
            yield quantize(total[row : row + _ROWS] / len(_FLIPS), depth)

    def plan(self, height: int, width: int, reserved: int = 0, images: int = 1) -> Plan:
        """Chooses the tile size and where the states are stored.

        Args:
          height: height of the input image in pixels.
          width: width of the input image in pixels.
          reserved: bytes of host memory that hold input and output during the computation.
          images: number of images of this size that are upscaled in turn, strip by strip.

        Raises:
          UserError: the memory budget, or the free disk space for the states, is too small.
        """
        total = 12 * self.scale**2 * height * width if self.ensemble else 0
        memory = default_memory(self.device) if self.memory is None else self.memory
        if self._programs is None:
            self._check_memory(height, width, memory, reserved + images * total)
            return Plan(max(height, width))
        return make_plan(
            self.network,
            height + 2 * self._margin,
            width + 2 * self._margin,
            memory=memory,
            disk=self.disk,
            platform=self.device.platform,
            side=self.tile,
            reserved=reserved + images * total,
            images=images,
            concurrent=self.concurrent,
        )

    def steps(self, height: int, width: int, plan: Plan) -> int:
        """Returns the total that `progress` is called with for an image of `height` × `width` pixels."""
        if self._programs is None:
            return 0
        height, width = height + 2 * self._margin, width + 2 * self._margin
        if not self.ensemble:
            return tiles.tile_count(self._programs, height, width, plan)
        return 4 * sum(tiles.tile_count(self._programs, *size, plan) for size in ((height, width), (width, height)))

    def _one(self, image: np.ndarray, depth: str, plan: Plan, progress: Progress) -> Iterator[np.ndarray]:
        if self._programs is None:
            yield self._whole(image, depth)
            return
        if self.verbose:
            size, tile = f"{image.shape[1]}×{image.shape[0]}", f"{plan.side}×{plan.side}"
            say(f"{size} pixels in tiles of {tile}, states in {_PLACES[plan.place]}")
        height, width = (side + 2 * self._margin for side in image.shape[:2])
        meter = _Meter(progress, tiles.tile_count(self._programs, height, width, plan))
        while True:
            begun = False
            advance = meter.attempt(tiles.tile_count(self._programs, height, width, plan))
            try:
                for strip in tiles.strips(self._programs, image, plan, depth, advance, self._margin):
                    begun = True
                    yield strip
                return
            except jax.errors.JaxRuntimeError as error:
                if begun or "RESOURCE_EXHAUSTED" not in str(error) or plan.side // 2 < SMALLEST_TILE:
                    raise
            plan = Plan(plan.side // 2, "host" if plan.place == "device" else plan.place, plan.folder)
            say(f"the device is out of memory: trying again with tiles of {plan.side}×{plan.side} pixels")

    def _compiled(self, height: int, width: int) -> Any:
        # The program for whole images of a size, with the margins. JAX keeps it, for other weights of the network too.
        place = jax.sharding.SingleDeviceSharding(self.device)
        lr = jax.ShapeDtypeStruct((1, height, width, 3), np.float32, sharding=place)
        # The default on accelerators multiplies float32 with fewer bits.
        with jax.default_matmul_precision("highest"):
            return _apply.lower(self.network, self._folded, lr).compile()

    def _check_memory(self, height: int, width: int, memory: int, reserved: int) -> None:
        smallest = getattr(self.network, "smallest", 1)
        if min(height, width) < smallest:
            raise UserError(f"{width}×{height} pixels are too few: this network needs at least {smallest}×{smallest}")
        program = self._compiled(height + 2 * self._margin, width + 2 * self._margin)
        if (analysis := program.memory_analysis()) is None:
            return  # not every backend tells
        needed = analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes
        if self.device.platform == "cpu":
            needed = RUNTIME + self.concurrent * (needed + reserved)
        if needed > memory:
            raise UserError(
                f"an image of {width}×{height} pixels needs {format_bytes(needed)}, because this network computes it "
                f"whole, and the limit is {format_bytes(memory)}: allow more memory, or upscale parts of the image",
                parameter="memory",
            )

    def _whole(self, image: np.ndarray, depth: str) -> np.ndarray:
        # Exact tiles exist for A2F only, and not for its ablation with depthwise projections.
        pixels = image.astype(np.float32) / (257 if image.dtype == np.uint16 else 1)
        margin = self._margin
        pixels = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), "symmetric")
        lr = jax.device_put(pixels[None], self.device)
        sr = np.asarray(self._compiled(*pixels.shape[:2])(self._folded, lr)[0])
        tiles.require_finite(np.isfinite(sr).all())
        rows, columns = (slice(self.scale * margin, self.scale * (margin + side)) for side in image.shape[:2])
        return quantize(sr[rows, columns], np.dtype(depth))


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
