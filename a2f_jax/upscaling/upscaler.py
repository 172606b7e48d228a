"""The upscaler: images of any size in memory, in; larger images, whole or strip by strip, out."""

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
"""When a device is out of memory, smaller tiles than this are not tried."""

_PLACES = {"device": "device memory", "host": "host memory", "disk": "a file"}

_FLIPS = [(transpose, y, x) for transpose in (False, True) for y in (1, -1) for x in (1, -1)]


def _flip(image: np.ndarray, transpose: bool, y: int, x: int) -> np.ndarray:
    """One of the 8 flips and transpositions, as a view."""
    return (image.swapaxes(0, 1) if transpose else image)[::y, ::x]


class Upscaler:
    """Upscales images of any size exactly, in bounded memory, with the same few compiled programs for all sizes."""

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
        """Prepares a network; its programs are compiled when they are first needed.

        Args:
          network: a network without weight normalisation, such as `Model.inference_network`.
          folded: its parameters, such as `Model.folded`.
          memory: bytes to use, see `make_plan`; by default three quarters of what is free.
          tile: side of the tiles in pixels; by default it follows from memory and device.
          ensemble: average the results of the 8 flips and transpositions ("A2F+" in papers): 8 times the work.
          device: where it runs; JAX's default device if it is None.
          verbose: whether to print how each image is computed.
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
          progress: see `Progress`.

        Returns:
          `[scale · H, scale · W, 3]` of the same dtype; integers are rounded to nearest.

        Raises:
          ValueError: the image has another shape or dtype.
          UserError: the memory is too small.
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
        """Upscales one image; yields the result strip by strip from top to bottom, see `upscale`.

        Args:
          image: see `upscale`.
          reserved: bytes of input and output that the caller keeps; by default the input's.
          progress: see `Progress`.
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
        yield quantise(total / len(_FLIPS), image.dtype)

    def plan(self, height: int, width: int, reserved: int = 0) -> Plan:
        """Decides how an image is computed, see `make_plan`."""
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
        """The number of steps that `progress` is told of in all, for a bar."""
        if self._programs is None:
            return 0
        runs = len(_FLIPS) if self.ensemble else 1
        return runs * tiles.tile_count(self._programs, height, width, self.plan(height, width))

    def _one(self, image: np.ndarray, depth: str, reserved: int, progress: Progress) -> Iterator[np.ndarray]:
        if self._programs is None:  # the paper's ablation with depthwise projections is small enough to do at once
            pixels = image.astype(np.float32) / (257 if image.dtype == np.uint16 else 1)
            yield quantise(
                np.asarray(jax.jit(self.network.apply)({"params": self._folded}, pixels[None])[0]), np.dtype(depth)
            )
            return
        plan = self.plan(image.shape[0], image.shape[1], reserved)
        if self.verbose:
            _say(f"{image.shape[1]}×{image.shape[0]} pixels in tiles of {plan.side}, states in {_PLACES[plan.place]}")
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
            _say(f"the device is out of memory: going on with tiles of {plan.side} pixels")


def _say(text: str) -> None:
    tqdm.write(f"a2f: {text}", file=sys.stderr)


def quantise(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Turns float32 on 0..255 into uint8 or uint16, rounded and clipped; float32 stays as it is."""
    if dtype == np.float32:
        return pixels
    levels = np.iinfo(dtype).max
    return np.clip(np.rint(pixels * (levels / 255)), 0, levels).astype(dtype)
