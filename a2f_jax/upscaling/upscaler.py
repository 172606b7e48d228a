"""The upscaler: takes an image of any size as an array and returns it upscaled, whole or in strips."""

import sys
from collections.abc import Iterator

import jax
import numpy as np
from tqdm import tqdm

from a2f_jax.models.a2f import A2F, Params
from a2f_jax.upscaling import tiles
from a2f_jax.upscaling.plan import Plan, default_memory, make_plan
from a2f_jax.upscaling.programs import programs_of
from a2f_jax.upscaling.tiles import Progress

SMALLEST_TILE = 32
"""Smallest tile side, in pixels, to fall back to when a device runs out of memory."""

_PLACES = {"device": "device memory", "host": "host memory", "disk": "a temporary file"}

_FLIPS = [(transpose, y, x) for transpose in (False, True) for y in (1, -1) for x in (1, -1)]


def _flip(image: np.ndarray, transpose: bool, y: int, x: int) -> np.ndarray:
    return (image.swapaxes(0, 1) if transpose else image)[::y, ::x]


class Upscaler:
    """Upscales images of any size exactly and in bounded memory; a few compiled programs serve all sizes."""

    def __init__(
        self,
        network: A2F,
        folded: Params,
        *,
        memory: int | None = None,
        tile: int | None = None,
        ensemble: bool = False,
        device: jax.Device | None = None,
        verbose: bool = False,
    ):
        """Initializes the upscaler; its programs are compiled when they are first needed.

        Args:
          network: a network without weight normalization, such as `Model.inference_network`.
          folded: its parameters, such as `Model.folded`.
          memory: memory budget in bytes. It covers the device's memory; on a CPU, it covers the whole process. The
            default is three quarters of what is free.
          tile: side of a tile in pixels. The default depends on the memory budget and the device.
          ensemble: whether to average the results of the 8 flips and transpositions of the image ("A2F+" in papers),
            which takes 8 times as long.
          device: the device to run on. The default is JAX's first local device.
          verbose: whether to print to standard error how each image is computed.
        """
        self.network = network
        self.device = device or jax.local_devices()[0]
        self.memory = memory
        self.tile = tile
        self.ensemble = ensemble
        self.verbose = verbose
        self._folded = folded
        self._programs = None if network.depthwise else programs_of(network, folded, self.device)

    @property
    def scale(self) -> int:
        """The upscaling factor."""
        return self.network.scale

    def upscale(self, image: np.ndarray, *, progress: Progress = lambda _: None) -> np.ndarray:
        """Upscales one image.

        Args:
          image: `[H, W, 3]`, RGB; uint8, uint16 (0..65535) or float32 on 0..255.
          progress: called with the number of tile programs that have run since the previous call.

        Returns:
          `[scale · H, scale · W, 3]` of the same dtype. Integers are rounded to nearest and clipped; float32 is neither
          rounded nor clipped.

        Raises:
          ValueError: the image has another shape or dtype.
          UserError: the memory budget, or the free disk space for the states, is too small.
        """
        height, width = (side * self.scale for side in image.shape[:2])
        out = np.empty((height, width, 3), image.dtype)
        row = 0
        for strip in self.strips(image, reserved=image.nbytes + out.nbytes, progress=progress):
            out[row : row + len(strip)] = strip
            row += len(strip)
        return out

    def strips(
        self, image: np.ndarray, *, reserved: int | None = None, progress: Progress = lambda _: None
    ) -> Iterator[np.ndarray]:
        """Upscales one image and yields the result in horizontal strips, so that it need not fit into memory.

        Args:
          image: `[H, W, 3]`, RGB; uint8, uint16 (0..65535) or float32 on 0..255.
          reserved: bytes of host memory that hold input and output during the computation. The default is the size of
            the input.
          progress: called with the number of tile programs that have run since the previous call.

        Yields:
          Strips `[h, scale · W, 3]` of the dtype of the image, from top to bottom.

        Raises:
          ValueError: the image has another shape or dtype.
          UserError: the memory budget, or the free disk space for the states, is too small.
        """
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype not in (np.uint8, np.uint16, np.float32):
            raise ValueError(f"expected uint8, uint16 or float32 [H, W, 3], got {image.dtype} {list(image.shape)}")
        if not self.ensemble:
            yield from self._one(image, image.dtype.name, image.nbytes if reserved is None else reserved, progress)
            return
        height, width = (side * self.scale for side in image.shape[:2])
        total = np.zeros((height, width, 3), np.float32)
        for flip in _FLIPS:
            row, view = 0, _flip(total, *flip)
            for strip in self._one(_flip(image, *flip), "float32", (reserved or image.nbytes) + total.nbytes, progress):
                view[row : row + len(strip)] += strip
                row += len(strip)
        yield quantize(total / len(_FLIPS), image.dtype)

    def plan(self, height: int, width: int, reserved: int = 0) -> Plan:
        """Chooses the tile size and where the states are stored.

        Args:
          height: height of the input image in pixels.
          width: width of the input image in pixels.
          reserved: bytes of host memory that hold input and output during the computation.

        Raises:
          UserError: the memory budget, or the free disk space for the states, is too small.
        """
        return make_plan(
            self.network,
            height,
            width,
            memory=default_memory(self.device) if self.memory is None else self.memory,
            platform=self.device.platform,
            side=self.tile,
            reserved=reserved,
        )

    def steps(self, height: int, width: int) -> int:
        """Returns the total that `progress` is called with for an image of `height` × `width` pixels."""
        if self._programs is None:
            return 0
        runs = len(_FLIPS) if self.ensemble else 1
        return runs * tiles.tile_count(self._programs, height, width, self.plan(height, width))

    def _one(self, image: np.ndarray, depth: str, reserved: int, progress: Progress) -> Iterator[np.ndarray]:
        if self._programs is None:  # an ablation of the paper, not meant for large images
            pixels = image.astype(np.float32) / (257 if image.dtype == np.uint16 else 1)
            yield quantize(
                np.asarray(jax.jit(self.network.apply)({"params": self._folded}, pixels[None])[0]), np.dtype(depth)
            )
            return
        plan = self.plan(image.shape[0], image.shape[1], reserved)
        if self.verbose:
            size, tile = f"{image.shape[1]}×{image.shape[0]}", f"{plan.side}×{plan.side}"
            _say(f"{size} pixels in tiles of {tile}, states in {_PLACES[plan.place]}")
        while True:
            begun = False
            try:
                for strip in tiles.strips(self._programs, image, plan, depth, progress):
                    begun = True
                    yield strip
                return
            except jax.errors.JaxRuntimeError as error:
                if begun or "RESOURCE_EXHAUSTED" not in str(error) or plan.side // 2 < SMALLEST_TILE:
                    raise
            plan = Plan(plan.side // 2, "host" if plan.place == "device" else plan.place, plan.folder)
            _say(f"the device is out of memory: trying again with tiles of {plan.side}×{plan.side} pixels")


def _say(text: str) -> None:
    tqdm.write(f"a2f: {text}", file=sys.stderr)


def quantize(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Converts pixels to integers.

    Args:
      pixels: float32 on 0..255.
      dtype: uint8, uint16 or float32.

    Returns:
      The pixels on the full range of the integer type, rounded to nearest and clipped; float32 is returned unchanged.
    """
    if dtype == np.float32:
        return pixels
    levels = np.iinfo(dtype).max
    return np.clip(np.rint(pixels * (levels / 255)), 0, levels).astype(dtype)
