"""Upscales one uploaded picture, as `a2f upscale` does, and prepares what a page shows of it."""

import dataclasses
import functools
import os
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from PIL import Image

from a2f_jax.errors import UserError
from a2f_jax.images import Picture
from a2f_jax.images.limits import PIXEL_LIMIT
from a2f_jax.images.png import COLOR_SPACE
from a2f_jax.images.reading import read_picture
from a2f_jax.images.writing import write_picture
from a2f_jax.machine import free_memory
from a2f_jax.model import load
from a2f_jax.staging import naming
from a2f_jax.upscaling.batch import Options, upscale_files
from a2f_jax.upscaling.choice import Candidate, Choice
from a2f_jax.upscaling.enlarge import SMALLEST
from a2f_jax.upscaling.plan import RUNTIME
from a2f_jax.upscaling.worklist import Job, Worklist

SHOWN_SIDE = 2048
"""Largest side, in pixels, of what is shown of a result. Browsers are slow with more; the file has everything."""

SHOWN_PIXELS = 100_000_000
"""Results with more pixels are not shown, as their middle could only be read with all of it in memory."""

_SHOWN_BYTES = 28
"""Bytes that it takes to read a pixel of the original or of the result, of four channels with 16 bits."""


@dataclasses.dataclass(frozen=True)
class Upscaled:
    """A result.

    Attributes:
      file: the result, a PNG file.
      before: what is shown of the original, enlarged by bicubic interpolation: a PNG file, or None if the result is too
        large to be shown.
      after: the same part of the result.
      size: width and height of the original in pixels.
      result_size: those of the result.
      shown_size: those of the part that is shown, or None.
      weights: the weights that were used.
      seconds: the time from reading to writing.
    """

    file: pathlib.Path
    before: pathlib.Path | None
    after: pathlib.Path | None
    size: tuple[int, int]
    result_size: tuple[int, int]
    shown_size: tuple[int, int] | None
    weights: str
    seconds: float


class Studio:
    """Upscales pictures with models that are loaded when they are first used."""

    def __init__(
        self,
        models: Mapping[str, Mapping[int, Sequence[str]]],
        *,
        memory: int | None = None,
        pixel_limit: int = PIXEL_LIMIT,
    ):
        """Remembers what there is to choose from.

        Args:
          models: for each name, the weights by their scale, each as `load` takes them. Of two, the second are for JPEG
            photographs, as in `Choice`.
          memory: memory to use, in bytes; by default three quarters of what is free.
          pixel_limit: the largest number of pixels that the header of an image may declare.

        Raises:
          UserError: the memory is too small for the first model and the smallest picture.
        """
        self.models = models
        self._memory, self._pixel_limit = memory, pixel_limit
        self._load = functools.cache(load)
        if memory is not None:
            name, weights = next(iter(models.items()))
            clean = self._choice(name, next(iter(weights))).clean
            clean.make_upscaler().plan(SMALLEST, SMALLEST)
        self._folder = tempfile.TemporaryDirectory(prefix="a2f-serve-")

    @property
    def folder(self) -> pathlib.Path:
        """The folder with all results."""
        return pathlib.Path(self._folder.name)

    def _choice(self, name: str, scale: int) -> Choice:
        weights = self.models.get(name, {})
        if scale not in weights:
            raise UserError(f"{name} has no weights for ×{scale}: choose another scale")
        return Choice(scale, *map(self._candidate, weights[scale]))

    def _candidate(self, weights: str) -> Candidate:
        return Candidate(weights, lambda **device: self._load(weights).upscaler(memory=self._memory, **device))

    def upscale(
        self,
        file: pathlib.Path,
        name: str,
        scale: int,
        *,
        on_progress: Callable[[float], object] = lambda fraction: None,
        stopped: threading.Event | None = None,
    ) -> Upscaled:
        """Upscales a picture with its transparency, 16 bits per channel, color profile, and metadata.

        Args:
          file: the picture, in a folder of its own.
          name: the name of a model.
          scale: a scale of this model.
          on_progress: called with the fraction of the work that is done, 0 to 1.
          stopped: set it to stop the work.

        Raises:
          UserError: the picture cannot be read or upscaled; the message is that of `a2f upscale`. Or `stopped` is set.
        """
        choice = self._choice(name, scale)
        os.makedirs(self._folder.name, mode=0o700, exist_ok=True)  # the system may delete old folders in /tmp
        folder = pathlib.Path(tempfile.mkdtemp(dir=self._folder.name))
        try:
            return self._upscaled(file, folder / f"{file.stem}-x{scale}.png", choice, on_progress, stopped)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _upscaled(
        self,
        file: pathlib.Path,
        output: pathlib.Path,
        choice: Choice,
        on_progress: Callable[[float], object],
        stopped: threading.Event | None,
    ) -> Upscaled:
        done, lock = 0, threading.Lock()

        def advance(count: int, total: int) -> None:
            nonlocal done
            if stopped and stopped.is_set():
                raise UserError("stopped")
            with lock:
                done += count
                fraction = done / total
            on_progress(fraction)

        options = Options(pixel_limit=self._pixel_limit, progress=False, on_progress=advance)
        # Messages name the picture as its owner does.
        with naming(file, pathlib.Path(file.name)), naming(output, pathlib.Path(output.name)):
            (result,) = upscale_files(choice, Worklist([Job(file, output)], single=True), options).results
            if result.error:
                raise result.error
        assert result.width and result.height and result.weights and result.seconds is not None
        before = after = shown = None
        scale, pixels = choice.scale, result.width * result.height
        # The memory of an accelerator does not limit what is read on the host.
        on_cpu = jax.local_devices()[0].platform == "cpu"
        memory = free_memory() if self._memory is None or not on_cpu else self._memory - RUNTIME
        if pixels <= SHOWN_PIXELS and _SHOWN_BYTES * (pixels + pixels // scale**2) <= memory:
            before, after, shown = _shown_parts(file, output, scale, self._pixel_limit)
        return Upscaled(
            output,
            before,
            after,
            (result.width // scale, result.height // scale),
            (result.width, result.height),
            shown,
            result.weights,
            result.seconds,
        )

    def discard(self, upscaled: Upscaled) -> None:
        """Deletes the files of a result."""
        shutil.rmtree(upscaled.file.parent, ignore_errors=True)


def _shown_parts(
    file: pathlib.Path, output: pathlib.Path, scale: int, pixel_limit: int
) -> tuple[pathlib.Path, pathlib.Path, tuple[int, int]]:
    # The middle of both pictures, in whole pixels of the original.
    original, result = read_picture(file, pixel_limit), read_picture(output, SHOWN_PIXELS)
    height, width = original.pixels.shape[:2]
    rows, columns = (min(side, SHOWN_SIDE // scale) for side in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    size = columns * scale, rows * scale
    before = _part(original, top, left, rows, columns)
    enlarged = np.asarray(Image.fromarray(before).resize(size, Image.Resampling.BICUBIC))
    after = _part(result, top * scale, left * scale, rows * scale, columns * scale)
    files = output.parent / "shown-before.png", output.parent / "shown-after.png"
    for path, pixels in zip(files, (enlarged, after), strict=True):
        with path.open("wb") as target:
            # Of the metadata, only the color space changes what is seen.
            profile = original.icc_profile if not original.gray else None
            color_space = tuple(chunk for chunk in original.png_chunks if chunk[0] in COLOR_SPACE)
            look = Picture(pixels[..., :3], icc_profile=profile, png_chunks=color_space)
            write_picture(target, "PNG", pixels.shape, pixels.dtype, [pixels], look)
    return *files, size


def _part(picture: Picture, top: int, left: int, rows: int, columns: int) -> np.ndarray:
    # uint8 `[rows, columns, 3 or 4]`.
    layers = [picture.pixels] if picture.alpha is None else [picture.pixels, picture.alpha[..., None]]
    part = np.concatenate([layer[top : top + rows, left : left + columns] for layer in layers], -1)
    return part if part.dtype == np.uint8 else (part >> 8).astype(np.uint8)
