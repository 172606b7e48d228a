"""The upscaler: takes an image of any size as an array and returns it upscaled, whole or in strips."""

import dataclasses
import numbers
import os
import threading
from collections.abc import Iterator
from typing import Any, Literal, get_args, overload

import jax
import numpy as np
from PIL import Image

from a2f_jax.models.a2f import A2F, Params
from a2f_jax.progress import say
from a2f_jax.upscaling import tiles
from a2f_jax.upscaling.enlarge import upscale_pil
from a2f_jax.upscaling.plan import Plan, default_memory, make_plan
from a2f_jax.upscaling.programs import programs_of
from a2f_jax.upscaling.tiles import Progress
from a2f_jax.upscaling.windows import Windows, quantize

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


def _flip(image: np.ndarray, transpose: bool, y: int, x: int) -> np.ndarray:
    return (image.swapaxes(0, 1) if transpose else image)[::y, ::x]


_DTYPES = (np.uint8, np.uint16, np.float32)


def _check(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype not in _DTYPES:
        raise ValueError(f"expected uint8, uint16 or float32 [H, W, 3], got {image.dtype} {list(image.shape)}")
    if not image.size:
        raise ValueError(f"expected an image with at least one pixel, got {list(image.shape)}")
    if image.dtype == np.float32 and not np.isfinite([image.min(), image.max()]).all():
        raise ValueError("the image contains NaN or infinity")


def _smaller(plan: Plan) -> Plan:
    # Takes less device memory: tiles instead of a whole image, or smaller ones whose states are elsewhere.
    if plan.canvas:
        return Plan(plan.side)
    return Plan(plan.side // 2, "host" if plan.place == "device" else plan.place, plan.folder)


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


def chosen_device(device: jax.Device | None) -> jax.Device:
    """Returns the device to compute on: the given one, or by default JAX's first local device.

    Raises:
      TypeError: `device` is something else than a device.
    """
    if device is None:
        return jax.local_devices()[0]
    if not isinstance(device, jax.Device):
        raise TypeError(f"device is {device!r}, but must be a JAX device, such as jax.devices()[0]")
    return device


class Upscaler:
    """Upscales images of any size exactly and in bounded memory; a few compiled programs serve all sizes."""

    def __init__(
        self,
        network: Any,
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
          network: a network without weight normalization, such as `Model.inference_network`. An `A2F` is computed block
            by block, in tiles, and on a GPU as a whole if the image is not too large. Other networks are computed
            whole, or in tiles if they do not look at the whole image.
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
          TypeError: `device` is not a device.
          ValueError: `edge` has another value, or a number is not a whole one, or is negative, or 0 for `tile` or
            `concurrent`.
        """
        if edge not in get_args(Edge):
            raise ValueError(f"edge is {edge!r}, but must be one of {', '.join(get_args(Edge))}")
        counts = {"memory": memory, "disk": disk, "tile": tile, "concurrent": concurrent}
        for name, value in counts.items():
            least = 1 if name in ("tile", "concurrent") else 0
            whole = isinstance(value, numbers.Real) and float(value).is_integer()
            if value is not None and not (whole and value >= least):
                raise ValueError(f"{name} is {value!r}, but must be a whole number of at least {least}")
        self.network = network
        self.device = chosen_device(device)
        self.memory = None if memory is None else int(memory)
        self.disk = None if disk is None else int(disk)
        self.tile = None if tile is None else int(tile)
        self.ensemble = ensemble
        self.edge = edge
        self.concurrent = int(concurrent)
        self.verbose = verbose
        self._margin = REFLECTED if edge == "reflect" else 0
        tiled = isinstance(network, A2F) and not network.depthwise
        self._programs = programs_of(network, folded, self.device) if tiled else None
        self._windows = Windows(network, folded, self.device)

    @property
    def scale(self) -> int:
        """The upscaling factor."""
        return self.network.scale

    @overload
    def upscale(self, image: np.ndarray | jax.Array, *, progress: Progress = ...) -> np.ndarray: ...

    @overload
    def upscale(self, image: Image.Image, *, progress: Progress = ...) -> Image.Image: ...

    def upscale(
        self, image: np.ndarray | jax.Array | Image.Image, *, progress: Progress = lambda _: None
    ) -> np.ndarray | Image.Image:
        """Upscales one image.

        Args:
          image: an array `[H, W, 3]`, RGB; uint8, uint16 (0..65535) or float32 in 0..255. Or a PIL image of at least
            8×8 pixels and mode 1, L, LA, P, PA, RGB, RGBA, RGBX, YCbCr or I;16.
          progress: called with the number of tile programs that have run since the previous call.

        Returns:
          For an array, `[scale · H, scale · W, 3]` of the same dtype. Integers are rounded to nearest and clipped;
          float32 is neither rounded nor clipped. For a PIL image, a PIL image, as `Model.upscale` returns it.

        Raises:
          TypeError: the image is a file name.
          ValueError: the array has another shape or dtype, or is not finite; or the PIL image has another mode.
          UserError: the PIL image is too small; the memory budget, or the free disk space for the states, is too small;
            or the result is not finite, most likely because of damaged weights.
        """
        if isinstance(image, Image.Image):
            return upscale_pil(self, image, progress)
        if isinstance(image, str | os.PathLike):
            raise TypeError(f"expected an array or a PIL image, got a file name: use PIL.Image.open({str(image)!r})")
        image = np.asarray(image)
        _check(image)
        height, width = (side * self.scale for side in image.shape[:2])
        out = np.empty((height, width, 3), image.dtype)
        row = 0
        with jax.transfer_guard("allow"):  # pixels are meant to be moved
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
          ValueError: the image has another shape or dtype, or is not finite; or `dtype` is another.
          UserError: the memory budget, or the free disk space for the states, is too small; or the result is not
            finite, most likely because of damaged weights.
        """
        _check(image)
        height, width = image.shape[:2]
        depth = np.dtype(dtype or image.dtype)
        if depth not in _DTYPES:
            raise ValueError(f"dtype is {depth}, but must be uint8, uint16 or float32")
        plan = self.plan(height, width, image.nbytes if reserved is None else reserved, images)
        if not self.ensemble:
            yield from self._one(image, depth.name, plan, progress)
            return
        total = np.zeros((self.scale * height, self.scale * width, 3), np.float32)
        for flip in _FLIPS:
            row, view = 0, _flip(total, *flip)
            turned = dataclasses.replace(plan, canvas=plan.canvas[::-1]) if plan.canvas and flip[0] else plan
            for strip in self._one(_flip(image, *flip), "float32", turned, progress):
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
        height, width = height + 2 * self._margin, width + 2 * self._margin
        if self._programs is None:
            return self._windows.plan(
                height,
                width,
                memory=memory,
                side=self.tile,
                reserved=reserved + images * total,
                concurrent=self.concurrent,
            )
        return make_plan(
            self.network,
            height,
            width,
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
        height, width = height + 2 * self._margin, width + 2 * self._margin
        if not self.ensemble:
            return self._tile_count(height, width, plan)
        return 4 * (self._tile_count(height, width, plan) + self._tile_count(width, height, plan))

    def _tile_count(self, height: int, width: int, plan: Plan) -> int:
        if self._programs is None:
            return self._windows.tile_count(height, width, plan)
        return tiles.tile_count(self._programs, height, width, plan)

    def _strips(self, image: np.ndarray, plan: Plan, depth: str, progress: Progress) -> Iterator[np.ndarray]:
        if self._programs is None:
            return self._windows.strips(image, plan, depth, progress, self._margin)
        return tiles.strips(self._programs, image, plan, depth, progress, self._margin)

    def _describe(self, height: int, width: int, plan: Plan) -> str:
        size = f"{width}×{height}"
        if plan.canvas:
            return f"{size} pixels at once"
        if self._programs is not None:
            return f"{size} pixels in tiles of {plan.side}×{plan.side}, states in {_PLACES[plan.place]}"
        if plan.side < max(height, width):
            return f"{size} pixels in overlapping tiles of {plan.side}×{plan.side}"
        return f"{size} pixels at once"

    def _one(self, image: np.ndarray, depth: str, plan: Plan, progress: Progress) -> Iterator[np.ndarray]:
        if self.verbose:
            say(self._describe(image.shape[0], image.shape[1], plan))
        height, width = (side + 2 * self._margin for side in image.shape[:2])
        meter = _Meter(progress, self._tile_count(height, width, plan))
        while True:
            begun = False
            advance = meter.attempt(self._tile_count(height, width, plan))
            try:
                for strip in self._strips(image, plan, depth, advance):
                    begun = True
                    yield strip
                return
            except jax.errors.JaxRuntimeError as error:
                smaller = _smaller(plan)
                if begun or "RESOURCE_EXHAUSTED" not in str(error) or smaller.side < SMALLEST_TILE:
                    raise
                if self._programs is None and self._windows.whole_only:
                    raise
            plan = smaller
            say(f"the device is out of memory: trying again with tiles of {plan.side}×{plan.side} pixels")
