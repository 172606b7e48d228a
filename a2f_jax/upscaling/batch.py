"""Upscaling of image files and folders. A file that fails does not stop the others."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import io
import math
import pathlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
from tqdm import tqdm

from a2f_jax.buckets import in_bucket, read_start
from a2f_jax.catalog import FORMATS
from a2f_jax.errors import UserError
from a2f_jax.files import exists as path_exists
from a2f_jax.files import format_bytes, is_folder, remove_abandoned, replacing
from a2f_jax.images.decoding import Picture
from a2f_jax.images.limits import PIXEL_LIMIT
from a2f_jax.images.reading import read_picture, read_size
from a2f_jax.images.signatures import is_cut_off
from a2f_jax.images.writing import check_format, format_of, write_picture
from a2f_jax.machine import free_memory, usable_cores
from a2f_jax.progress import progress_bar, say
from a2f_jax.staging import local_copy
from a2f_jax.upscaling.choice import Candidate, Choice, describe_source
from a2f_jax.upscaling.enlarge import Enlargement, Target, enlarge, enlargement_of, factor_of, share, steps
from a2f_jax.upscaling.plan import CPU_SIDE, RUNTIME
from a2f_jax.upscaling.upscaler import Upscaler
from a2f_jax.upscaling.worklist import STDIO, Job, Worklist

_START = 1 << 16
"""Bytes of an image in a bucket that are read to find its size."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How files are upscaled.

    Attributes:
      overwrite: replace existing files.
      resume: skip images whose output file exists with the format and the size that it would get, as after an
        interrupted run. Other existing files are errors, unless `overwrite` is set.
      target: the size of the results: a factor, a box `(width, height)` in pixels to fit into while keeping the aspect
        ratio, or None for the scale of the network.
      format_name: the output format, a key of `FORMATS`. None: determined by the name of the output file.
      quality: 1 to 100, for JPEG, WebP and AVIF. None: 95 for JPEG, lossless for WebP, 90 for AVIF.
      pixel_limit: the largest number of pixels that the header of an image may declare.
      progress: show a progress bar on standard error.
      verbose: if there is a choice of weights, print to standard error which each image is upscaled with.
      on_progress: called, possibly by several threads, with the number of tile programs that have run since the call
        before, and with the total of the image. A `UserError` that it raises stops the image.
    """

    overwrite: bool = False
    resume: bool = False
    target: Target = None
    format_name: str | None = None
    quality: int | None = None
    pixel_limit: int = PIXEL_LIMIT
    progress: bool = True
    verbose: bool = False
    on_progress: Callable[[int, int], object] | None = None


@dataclasses.dataclass(frozen=True)
class Result:
    """What happened to one image.

    Attributes:
      job: the image and its output file.
      status: `"done"`; `"skipped"`, if there was nothing to do; or `"failed"`.
      reason: why the image was skipped, or None.
      error: why the image failed, or None.
      weights: name of the weights that the image was upscaled with, or None if it was not upscaled.
      height: height of the output in pixels, or None if the image was not upscaled.
      width: width of the output in pixels, or None if the image was not upscaled.
      seconds: the time from reading to writing, or None if the image was not upscaled.
    """

    job: Job
    status: Literal["done", "skipped", "failed"]
    reason: str | None = None
    error: UserError | None = None
    weights: str | None = None
    height: int | None = None
    width: int | None = None
    seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What happened to all images.

    Attributes:
      results: one for each job, in the same order.
      seconds: the time that all images took together.
      idle: the fraction of this time, 0 to 1, in which the devices had nothing to do.
    """

    results: Sequence[Result]
    seconds: float
    idle: float

    def with_status(self, status: str) -> list[Result]:
        """Returns the results of a status."""
        return [result for result in self.results if result.status == status]


class _Slots:
    """Slots of which several can be taken at once, in turn, so that one who needs many does not wait forever."""

    def __init__(self, slots: Sequence[Any]):
        self.count = len(slots)
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._turn = threading.Lock()
        for slot in slots:
            self._free.put(slot)

    @contextlib.contextmanager
    def take(self, count: int) -> Iterator[Any]:
        """Waits until `count` slots are free, and takes them; yields one of them."""
        with self._turn:
            taken = [self._free.get() for _ in range(count)]
        try:
            yield taken[0]
        finally:
            for slot in taken:
                self._free.put(slot)


class _Pipeline:
    """Decodes, upscales and encodes several images concurrently, using all local devices and cores."""

    def __init__(self, choice: Choice, work: Worklist, options: Options):
        self.single = work.single
        self.show_tiles = options.progress and len(work.jobs) == 1
        self.choice = choice
        self.options = options
        self.devices = jax.local_devices()[: len(work.jobs)]
        self.busy = 0.0
        self._lock = threading.Lock()
        self.stopped = threading.Event()  # set to interrupt the images being computed
        # By the main thread, which signals can interrupt.
        reads = sys.stdin is not None and any(job.image == STDIO for job in work.jobs)
        self._standard_input = sys.stdin.buffer.read() if reads else b""
        self._upscalers: dict[tuple[Candidate, jax.Device], Upscaler] = {}
        self._making = threading.Lock()
        # A large image takes all cores of a CPU, one of a few tiles leaves some to others.
        self._cores = usable_cores()
        self._parts = self._cores if [device.platform for device in self.devices] == ["cpu"] else 1
        self._slots = _Slots(self.devices * self._parts)
        # What is decoded and not yet encoded takes memory: one large image more than there are devices, or many small
        # ones, so that devices need not wait for a single core that decodes and encodes.
        self._in_memory = _Slots(range((len(self.devices) + 1) * self._cores))
        self.threads = min(len(work.jobs), self._in_memory.count)

    def _upscaler(self, weights: Candidate, device: jax.Device) -> Upscaler:
        with self._making:
            if (weights, device) not in self._upscalers:
                upscaler = weights.make_upscaler(device=device, concurrent=len(self.devices))
                self._upscalers[weights, device] = upscaler
            return self._upscalers[weights, device]

    @contextlib.contextmanager
    def _device(self, weights: Candidate, share: float) -> Iterator[Upscaler]:
        count = math.ceil(share * self._parts - 1e-9)  # 7 / 25 * 25 is a little more than 7
        with self._slots.take(count) as device:
            start = time.perf_counter()
            try:
                yield self._upscaler(weights, device)
            finally:
                with self._lock:
                    self.busy += (time.perf_counter() - start) * count / self._parts

    def run(self, job: Job) -> Result:
        """Upscales one file; raises `UserError` if it fails."""
        start = time.perf_counter()
        if job.image == STDIO and sys.stdin is None:
            raise UserError("standard input is closed: pass the name of an image file")
        format_name = self.options.format_name
        if not format_name and job.output != STDIO:
            format_name = format_of(job.output)
        exists = job.output != STDIO and path_exists(job.output)
        with contextlib.ExitStack() as stack:

            @functools.cache  # copied once, if at all
            def source() -> pathlib.Path | bytes:
                return self._standard_input if job.image == STDIO else stack.enter_context(local_copy(job.image))

            @functools.cache
            def size() -> tuple[int, int]:
                return _size_of(job, source, self.options.pixel_limit)

            reason = self._reason_to_skip(job, size, format_name, exists)
            if reason:
                return Result(job, "skipped", reason)
            with self._in_memory.take(self._tiles(*size())):
                if self.stopped.is_set():
                    raise UserError("interrupted")
                return self._run(job, source(), format_name, start)

    def _tiles(self, height: int, width: int) -> int:
        # About as many as the image has, and as its result would have if it were that of one pass; at most all cores.
        factor = factor_of(height, width, self.choice.scale, self.options.target)
        pixels = height * width * max(1.0, factor / self.choice.scale) ** 2
        return min(self._cores, math.ceil(pixels / CPU_SIDE**2))

    def _run(self, job: Job, source: pathlib.Path | bytes, format_name: str | None, start: float) -> Result:
        picture = read_picture(source, self.options.pixel_limit)
        weights = self.choice.of(picture)
        format_name = format_name or (picture.format if picture.format in FORMATS else "PNG")
        with _naming(job):
            to = enlargement_of(picture, self.choice.scale, self.options.target, FORMATS[format_name].sixteen_bit)
        check_format(format_name, str(job.output), picture, to.height, to.width)
        if self.options.verbose and self.choice.photo:
            say(f"{job.name}: {describe_source(picture)}, {weights.name}")
        self._upscale(job, format_name, picture, to, weights)
        seconds = round(time.perf_counter() - start, 3)
        return Result(job, "done", weights=weights.name, height=to.height, width=to.width, seconds=seconds)

    def _reason_to_skip(
        self, job: Job, size: Callable[[], tuple[int, int]], format_name: str | None, exists: bool
    ) -> str | None:
        if exists and is_folder(job.output):
            raise UserError(f"{job.output} is a folder: choose another output")
        if exists and not self.options.overwrite and not self.options.resume:
            raise UserError(f"{job.output} exists: choose another output, or replace it", parameter="overwrite")
        box = isinstance(self.options.target, tuple) and not self.single
        if not box and not (exists and self.options.resume):
            return None
        height, width = size()
        factor = factor_of(height, width, self.choice.scale, self.options.target)
        if box and factor <= 1:
            return "the image already has the requested size"
        if not exists or not self.options.resume:
            return None
        expected = format_name, round(height * factor), round(width * factor)
        found, complete = _find_result(job.output)
        if found == expected and complete:
            return "the output file exists with the expected format and size"
        if self.options.overwrite or (not complete and found in (None, expected)):
            return None
        described = ["{0} of {2}×{1} pixels".format(*size) if size else "no image" for size in (found, expected)]
        raise UserError(
            f"{job.output} exists, but it is {described[0]} instead of {described[1]}, so it was probably written with "
            "other options: choose another output, or replace it",
            parameter="overwrite",
        )

    def _exceeds_memory(self, job: Job, format_name: str, to: Enlargement, weights: Candidate) -> bool:
        # Whether the result is too large to keep; an error if its format needs it whole.
        memory, on_cpu = self._upscaler(weights, self.devices[0]).memory, self.devices[0].platform == "cpu"
        budget = memory - RUNTIME if memory and on_cpu else free_memory()
        if to.nbytes <= budget // 4 // len(self.devices):
            return False
        if not FORMATS[format_name].in_strips:
            raise UserError(
                f"{job.output} does not fit in memory ({format_bytes(to.nbytes)}), and {format_name} must be held in "
                "memory as a whole: choose PNG or TIFF, which are written strip by strip"
            )
        return True

    def _upscale(self, job: Job, format_name: str, picture: Picture, to: Enlargement, weights: Candidate) -> None:
        shape = to.height, to.width, to.channels
        large = self._exceeds_memory(job, format_name, to, weights)
        # Before the work, which would be lost if the file could not be written.
        with _opened(job.output, replaces=self.options.overwrite or self.options.resume) as file:
            kept = 0 if large else to.nbytes
            part = 1.0
            if self._parts > 1:
                with _naming(job):
                    part = share(self._upscaler(weights, self.devices[0]), picture, to, reserved=kept)
            with _naming(job), self._device(weights, part) as upscaler, self._bar(upscaler, picture, to, kept) as bar:
                strips = enlarge(upscaler, picture, to, self._progress(bar), reserved=kept)
                if large:
                    write_picture(file, format_name, shape, to.dtype, strips, picture, self.options.quality)
                    return
                result = list(strips)
            # The device is free for the next image while this one is encoded.
            write_picture(file, format_name, shape, to.dtype, result, picture, self.options.quality)

    def _progress(self, bar: tqdm) -> Callable[[int], None]:
        def advance(count: int) -> None:
            if self.stopped.is_set():
                raise UserError("interrupted")
            bar.update(count)
            if self.options.on_progress:
                self.options.on_progress(count, bar.total)

        return advance

    def _bar(self, upscaler: Upscaler, picture: Picture, to: Enlargement, reserved: int) -> tqdm:
        counted = self.show_tiles or self.options.on_progress
        total = steps(upscaler, picture, to, reserved=reserved) if counted else None
        return progress_bar(total=total, unit="tile", visible=self.show_tiles, delay=2, leave=False)


def _size_of(job: Job, source: Callable[[], pathlib.Path | bytes], limit: int) -> tuple[int, int]:
    # The height and the width. An object is copied as a whole only if its first bytes do not tell.
    if in_bucket(job.image):
        try:
            return read_size(read_start(job.image, _START), limit, name=job.name)[1:]
        except UserError as error:
            if error.parameter == "pixel_limit":
                raise
    return read_size(source(), limit)[1:]


def _find_result(output: pathlib.Path) -> tuple[tuple[str, int, int] | None, bool]:
    # The format, height, and width of an existing file, None if it is no image; and whether its end is there, which
    # a copy of the folder that was interrupted may lack.
    if in_bucket(output):  # objects are always complete
        with contextlib.suppress(UserError):  # the size comes later, such as after a large color profile
            return read_size(read_start(output, _START), sys.maxsize, upright=False), True
    with local_copy(output) as file:
        if not file.exists():
            raise UserError(f"{output} is a link to nothing: remove it")
        if not file.stat().st_size:
            return None, False
        try:
            found = read_size(file, sys.maxsize, upright=False)  # results are upright
        except UserError:
            return None, True
        return found, not is_cut_off(file)


@contextlib.contextmanager
def _naming(job: Job) -> Iterator[None]:
    # What computes an image does not know its name.
    try:
        yield
    except UserError as error:
        raise type(error)(f"{job.name}: {error}", parameter=error.parameter) from error


@contextlib.contextmanager
def _opened(output: pathlib.Path, *, replaces: bool) -> Iterator[Any]:
    if output != STDIO:
        with replacing(output, overwrite=replaces) as file:
            yield file
        return
    buffer = io.BytesIO()  # the TIFF writer seeks, which a pipe does not support
    yield buffer
    try:
        sys.stdout.buffer.write(buffer.getvalue())
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"cannot write standard output: {error.strerror}") from error


def upscale_files(
    choice: Choice,
    work: Worklist,
    options: Options = Options(),
    on_failure: Callable[[UserError], object] = lambda error: None,
) -> Outcome:
    """Upscales image files. A file that fails does not stop the others.

    Args:
      choice: the weights to choose from for each image.
      work: the images, as returned by `list_jobs`.
      options: how the files are upscaled.
      on_failure: called with the error of each image that fails, as soon as it fails.

    Returns:
      The result for every image.
    """
    if options.resume:
        for folder in {job.output.parent for job in work.jobs if job.output != STDIO}:
            remove_abandoned(folder)
    pipeline = _Pipeline(choice, work, options)
    results: dict[Job, Result] = {}
    start = time.perf_counter()
    with (
        concurrent.futures.ThreadPoolExecutor(pipeline.threads) as pool,
        progress_bar(total=len(work.jobs), unit="image", visible=options.progress and not pipeline.show_tiles) as bar,
    ):
        try:
            futures = {pool.submit(pipeline.run, job): job for job in work.jobs}
            for future in concurrent.futures.as_completed(futures):
                job = futures.pop(future)
                try:
                    results[job] = future.result()
                except Exception as unexpected:  # whatever it is, it must not stop the other images
                    error = unexpected
                    if not isinstance(error, UserError):
                        error = UserError(f"{job.name}: {type(error).__name__}: {' '.join(str(error).split())}")
                    results[job] = Result(job, "failed", error=error)
                    on_failure(error)
                bar.update()
        except BaseException:
            pipeline.stopped.set()
            pool.shutdown(cancel_futures=True)
            raise
    seconds = time.perf_counter() - start
    idle = max(0.0, 1 - pipeline.busy / (seconds * len(pipeline.devices)))
    return Outcome([results[job] for job in work.jobs], seconds, idle)
