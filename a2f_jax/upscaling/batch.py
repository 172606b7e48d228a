"""Upscaling of image files and folders. A file that fails does not stop the others."""

import concurrent.futures
import contextlib
import dataclasses
import io
import os
import pathlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
from tqdm import tqdm

from a2f_jax.catalog import FORMATS, OTHER_IMAGE_SUFFIXES, READABLE_SUFFIXES
from a2f_jax.errors import UserError, shorten
from a2f_jax.files import check_writable, format_bytes, local_path, replacing
from a2f_jax.images.limits import PIXEL_LIMIT
from a2f_jax.images.reading import Picture, read_picture, read_size
from a2f_jax.images.writing import check_format, format_of, write_picture
from a2f_jax.progress import progress_bar
from a2f_jax.upscaling.enlarge import Enlargement, Target, enlarge, enlargement_of, factor_of, steps
from a2f_jax.upscaling.plan import RUNTIME, free_memory
from a2f_jax.upscaling.upscaler import Upscaler

WRITABLE_SUFFIXES = frozenset(suffix for spec in FORMATS.values() for suffix in spec.suffixes)
"""Suffixes, in lower case, of the files that can be written."""

STDIO = pathlib.Path("-")
"""Standard input as an image, standard output as the output."""


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
    """

    overwrite: bool = False
    resume: bool = False
    target: Target = None
    format_name: str | None = None
    quality: int | None = None
    pixel_limit: int = PIXEL_LIMIT
    progress: bool = True


@dataclasses.dataclass(frozen=True)
class Job:
    """An image file and the file to write its upscaled version to."""

    image: pathlib.Path
    output: pathlib.Path

    @property
    def name(self) -> str:
        """The image's name in messages."""
        return "standard input" if self.image == STDIO else str(self.image)


@dataclasses.dataclass(frozen=True)
class Worklist:
    """The images to upscale.

    Attributes:
      jobs: one for each image.
      ignored: the files named like images, and the folders, that are left out, each with the reason: `"hidden"`,
        `"in an unsupported format"` or `"unreadable"`.
      single: whether one image was named, rather than a folder or several images.
    """

    jobs: Sequence[Job]
    ignored: Sequence[tuple[pathlib.Path, str]] = ()
    single: bool = False


@dataclasses.dataclass(frozen=True)
class Result:
    """What happened to one image.

    Attributes:
      job: the image and its output file.
      status: `"done"`; `"skipped"`, if there was nothing to do; or `"failed"`.
      reason: why the image was skipped, or None.
      error: why the image failed, or None.
      height: height of the output in pixels, or None if the image was not upscaled.
      width: width of the output in pixels, or None if the image was not upscaled.
      seconds: the time from reading to writing, or None if the image was not upscaled.
    """

    job: Job
    status: Literal["done", "skipped", "failed"]
    reason: str | None = None
    error: UserError | None = None
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


def input_path(image: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the path of an input image or folder.

    Args:
      image: the path; a leading `~` stands for the home folder, unless it is part of the name of an existing file, as
        patterns of the shell may produce it.

    Raises:
      UserError: the path is a URL, or the user after `~` does not exist.
    """
    return pathlib.Path(image) if os.path.lexists(image) else local_path(image)


def list_jobs(
    images: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str], format_name: str | None = None
) -> Worklist:
    """Pairs every input image with its output file.

    Args:
      images: files, folders that are searched recursively for images, or `STDIO` for standard input. Hidden files, and
        files in hidden folders, are left out of folders.
      output: a file if one image is named; a folder, which need not exist, for any number of images; or `STDIO` for
        standard output. A path that ends in a slash is a folder. Otherwise, with one image, a path that has a suffix
        and is not an existing folder is a file.
      format_name: the output format, a key of `FORMATS`; output files in a folder get its suffix.

    Returns:
      One job for each image, and the files that were left out. In an output folder, files keep their names, and
      subfolders their structure.

    Raises:
      UserError: there are no images, two of them have the same output file, an output file is one of the images or
        cannot be written, or `output` is the name of an image file although there are several images.
    """
    paths = [input_path(image) for image in images]
    target = local_path(output)
    names_folder = os.fspath(output).endswith(("/", os.sep)) or os.path.isdir(target)
    single = len(paths) == 1 and not os.path.isdir(paths[0])
    ignored: list[tuple[pathlib.Path, str]] = []
    if single and (target == STDIO or (target.suffix and not names_folder)):
        if not format_name and target != STDIO and target.suffix.lower() not in WRITABLE_SUFFIXES:
            raise UserError(
                f"cannot write {target}: its suffix must be one of {', '.join(sorted(WRITABLE_SUFFIXES))}, or its name "
                "must end in / if it is a folder"
            )
        jobs = [Job(paths[0], target)]
    elif STDIO in (target, *paths):
        raise UserError("standard input and output (-) can carry only one image: pass one input and one output")
    elif not names_folder and target.suffix.lower() in WRITABLE_SUFFIXES:
        several = "a folder" if len(paths) == 1 else f"{len(paths)} files or folders"
        raise UserError(f"{target} is the name of one file, but the input is {several}: pass a folder for the output")
    else:
        jobs, ignored = _jobs_in_folder(paths, target, format_name)
    if not jobs:
        raise UserError(
            f"no images found in {', '.join(map(str, paths))}: pass a folder that contains PNG, JPEG, ... files"
            + (f" ({len(ignored)} were left out: {summarize(ignored)})" if ignored else "")
        )
    _check_outputs(jobs)
    return Worklist(jobs, ignored, single)


def summarize(ignored: Sequence[tuple[pathlib.Path, str]]) -> str:
    """Returns one line that counts what was left out by the reason, and names the first few of each."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in ignored:
        by_reason.setdefault(reason, []).append(str(path))
    return ", ".join(f"{len(names)} {reason} ({shorten(names)})" for reason, names in by_reason.items())


def _jobs_in_folder(
    paths: Sequence[pathlib.Path], target: pathlib.Path, format_name: str | None
) -> tuple[list[Job], list[tuple[pathlib.Path, str]]]:
    jobs: dict[str, Job] = {}  # by the image, which may be named twice: in its folder and by itself
    ignored: list[tuple[pathlib.Path, str]] = []
    for path in paths:
        found = [path]
        if os.path.isdir(path):
            found, left_out = _search(path, target)
            ignored += left_out
        for image in found:
            output = target / (image.relative_to(path) if os.path.isdir(path) else image.name)
            if format_name or image.suffix.lower() not in WRITABLE_SUFFIXES:
                output = output.with_suffix(FORMATS[format_name or "PNG"].suffixes[0])
            jobs.setdefault(os.path.abspath(image), Job(image, output))
    return list(jobs.values()), ignored


def _search(folder: pathlib.Path, output: pathlib.Path) -> tuple[list[pathlib.Path], list[tuple[pathlib.Path, str]]]:
    # The images in a folder, at any depth, and the files that are left out.
    found: list[pathlib.Path] = []
    left_out: list[tuple[pathlib.Path, str]] = []

    def leave_out(error: OSError) -> None:
        left_out.append((pathlib.Path(error.filename), "unreadable"))

    for parent, folders, names in os.walk(folder, onerror=leave_out):
        if output.resolve() != folder.resolve():  # it holds the results of an earlier run
            folders[:] = [name for name in folders if pathlib.Path(parent, name).resolve() != output.resolve()]
        for path in (pathlib.Path(parent, name) for name in names):
            suffix = path.suffix.lower()
            if suffix in READABLE_SUFFIXES:
                if any(part.startswith(".") for part in path.relative_to(folder).parts):
                    left_out.append((path, "hidden"))
                elif path.is_file():
                    found.append(path)
                else:
                    left_out.append((path, "unreadable"))
            elif suffix in OTHER_IMAGE_SUFFIXES:
                left_out.append((path, "in an unsupported format"))
    return sorted(found), sorted(left_out)


def _check_outputs(jobs: Sequence[Job]) -> None:
    # Finds out before the work begins what would be lost, or could not be written, at its end.
    originals = {job.image.resolve() for job in jobs if job.image != STDIO}
    inputs: dict[pathlib.Path, pathlib.Path] = {}
    for job in jobs:
        if job.output == STDIO:
            continue
        if job.output.resolve() in originals:
            raise UserError(f"{job.output} is one of the input images: choose another output")
        other = inputs.setdefault(job.output, job.image)
        if other is not job.image:
            raise UserError(f"{other} and {job.image} have the same output file {job.output}: upscale them separately")
    for folder in sorted({output.parent for output in inputs}):
        check_writable(folder)


class _Pipeline:
    """Decodes, upscales and encodes several images concurrently, using all local devices."""

    def __init__(self, make_upscaler: Callable[..., Upscaler], work: Worklist, options: Options):
        self.single = work.single
        self.show_tiles = options.progress and len(work.jobs) == 1
        self.options = options
        self.devices = jax.local_devices()[: len(work.jobs)]
        self.busy = 0.0
        self._lock = threading.Lock()
        self.stopped = threading.Event()  # set to interrupt the images being computed
        upscalers = [make_upscaler(device=device, concurrent=len(self.devices)) for device in self.devices]
        self._upscaler = upscalers[0]  # for what is the same for all of them
        self.scale = self._upscaler.scale
        self._free: queue.Queue[Upscaler] = queue.Queue()
        for upscaler in upscalers:
            self._free.put(upscaler)

    @contextlib.contextmanager
    def _device(self) -> Iterator[Upscaler]:
        upscaler = self._free.get()
        start = time.perf_counter()
        try:
            yield upscaler
        finally:
            with self._lock:
                self.busy += time.perf_counter() - start
            self._free.put(upscaler)

    def run(self, job: Job) -> Result:
        """Upscales one file; raises `UserError` if it fails."""
        start = time.perf_counter()
        if job.image == STDIO and sys.stdin is None:
            raise UserError("standard input is closed: pass the name of an image file")
        source = sys.stdin.buffer.read() if job.image == STDIO else job.image
        format_name = self.options.format_name
        if not format_name and job.output != STDIO:
            format_name = format_of(job.output)
        reason = self._reason_to_skip(job, source, format_name)
        if reason:
            return Result(job, "skipped", reason)
        picture = read_picture(source, self.options.pixel_limit)
        format_name = format_name or (picture.format if picture.format in FORMATS else "PNG")
        with _naming(job):
            to = enlargement_of(picture, self.scale, self.options.target, FORMATS[format_name].sixteen_bit)
        check_format(format_name, str(job.output), picture, to.height, to.width)
        self._upscale(job, format_name, picture, to)
        seconds = round(time.perf_counter() - start, 3)
        return Result(job, "done", height=to.height, width=to.width, seconds=seconds)

    def _reason_to_skip(self, job: Job, source: pathlib.Path | bytes, format_name: str | None) -> str | None:
        exists = job.output != STDIO and os.path.lexists(job.output)
        if exists and os.path.isdir(job.output):
            raise UserError(f"{job.output} is a folder: choose another output")
        if exists and not self.options.overwrite and not self.options.resume:
            raise UserError(f"{job.output} exists: choose another output, or replace it", parameter="overwrite")
        box = isinstance(self.options.target, tuple) and not self.single
        if not box and not (exists and self.options.resume):
            return None
        _, height, width = read_size(source, self.options.pixel_limit)
        factor = factor_of(height, width, self.scale, self.options.target)
        if box and factor <= 1:
            return "the image already has the requested size"
        if not exists or not self.options.resume:
            return None
        try:
            found = read_size(job.output, sys.maxsize, upright=False)  # results are upright
        except UserError:
            found = None
        expected = format_name, round(height * factor), round(width * factor)
        if found == expected:
            return "the output file exists with the expected format and size"
        if self.options.overwrite:
            return None
        described = ["{0} of {2}×{1} pixels".format(*size) if size else "no image" for size in (found, expected)]
        raise UserError(
            f"{job.output} exists, but it is {described[0]} instead of {described[1]}, so it was probably written with "
            "other options: choose another output, or replace it",
            parameter="overwrite",
        )

    def _exceeds_memory(self, job: Job, format_name: str, to: Enlargement) -> bool:
        # Whether the result is too large to keep; an error if its format needs it whole.
        memory, on_cpu = self._upscaler.memory, self._upscaler.device.platform == "cpu"
        budget = memory - RUNTIME if memory and on_cpu else free_memory()
        if to.nbytes <= budget // 4 // len(self.devices):
            return False
        if not FORMATS[format_name].in_strips:
            raise UserError(
                f"{job.output} does not fit in memory ({format_bytes(to.nbytes)}), and {format_name} must be held in "
                "memory as a whole: choose PNG or TIFF, which are written strip by strip"
            )
        return True

    def _upscale(self, job: Job, format_name: str, picture: Picture, to: Enlargement) -> None:
        shape = to.height, to.width, to.channels
        large = self._exceeds_memory(job, format_name, to)
        with _opened(job.output) as file:  # before the work, which would be lost if the file could not be written
            kept = 0 if large else to.nbytes
            with _naming(job), self._device() as upscaler, self._bar(upscaler, picture, to, kept) as bar:
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

        return advance

    def _bar(self, upscaler: Upscaler, picture: Picture, to: Enlargement, reserved: int) -> tqdm:
        total = steps(upscaler, picture, to, reserved=reserved) if self.show_tiles else None
        return progress_bar(total=total, unit="tile", visible=self.show_tiles, delay=2, leave=False)


@contextlib.contextmanager
def _naming(job: Job) -> Iterator[None]:
    # What computes an image does not know its name.
    try:
        yield
    except UserError as error:
        raise UserError(f"{job.name}: {error}", parameter=error.parameter) from error


@contextlib.contextmanager
def _opened(output: pathlib.Path) -> Iterator[Any]:
    if output != STDIO:
        with replacing(output) as file:
            yield file
        return
    buffer = io.BytesIO()  # the TIFF writer seeks, which a pipe does not support
    yield buffer
    sys.stdout.buffer.write(buffer.getvalue())
    sys.stdout.buffer.flush()


def upscale_files(
    make_upscaler: Callable[..., Upscaler],
    work: Worklist,
    options: Options = Options(),
    on_failure: Callable[[UserError], object] = lambda error: None,
) -> Outcome:
    """Upscales image files. A file that fails does not stop the others.

    Args:
      make_upscaler: creates the upscaler of each device. It is called with the keyword arguments `device` and
        `concurrent`, such as `Model.upscaler`, or a `functools.partial` of it with further options.
      work: the images, as returned by `list_jobs`.
      options: how the files are upscaled.
      on_failure: called with the error of each image that fails, as soon as it fails.

    Returns:
      The result for every image.
    """
    pipeline = _Pipeline(make_upscaler, work, options)
    results: dict[Job, Result] = {}
    start = time.perf_counter()
    with (
        concurrent.futures.ThreadPoolExecutor(len(pipeline.devices) + 1) as pool,
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
