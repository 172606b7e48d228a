"""Upscaling of image files and folders. A file that fails does not stop the others."""

import concurrent.futures
import contextlib
import dataclasses
import io
import json
import pathlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from PIL import Image
from tqdm import tqdm

from a2f_jax.catalogue import FORMATS, READABLE_SUFFIXES
from a2f_jax.errors import UserError
from a2f_jax.files import replacing
from a2f_jax.images.reading import PIXEL_LIMIT, Picture, read_picture
from a2f_jax.images.writing import check_format, format_of, write_picture
from a2f_jax.models.a2f import A2F, Params
from a2f_jax.upscaling.enlarge import Enlargement, Target, enlarge, enlargement_of, steps
from a2f_jax.upscaling.plan import free_memory
from a2f_jax.upscaling.upscaler import Upscaler

_WRITABLE = {suffix for form in FORMATS.values() for suffix in form.suffixes}

PIPE = pathlib.Path("-")
"""Standard input as an image, standard output as the output."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How files are upscaled.

    Attributes:
      overwrite: replace existing files.
      resume: skip images whose output file exists, as after an interrupted run.
      target: the size of the results: a factor, a box `(width, height)` in pixels to fill without changing the
        proportions, or None for the scale of the network.
      form: the output format, a key of `FORMATS`. None: determined by the name of the output file.
      quality: 1 to 100, for JPEG, WebP and AVIF. None: 95 for JPEG, lossless for WebP, 90 for AVIF.
      pixel_limit: the largest number of pixels that the header of an image may declare.
      memory: bytes of memory to use, of the device or, on a CPU, of the process. None: three quarters of what is free.
      tile: side of the square tiles in pixels. None: chosen to suit the memory and the device.
      ensemble: average the results over the 8 flips and transpositions, which takes 8 times as long.
      verbose: print on standard error how each image is computed.
    """

    overwrite: bool = False
    resume: bool = False
    target: Target = None
    form: str | None = None
    quality: int | None = None
    pixel_limit: int = PIXEL_LIMIT
    memory: int | None = None
    tile: int | None = None
    ensemble: bool = False
    verbose: bool = False


@dataclasses.dataclass(frozen=True)
class Job:
    """An image file and the file to write its upscaled version to."""

    image: pathlib.Path
    target: pathlib.Path


def list_jobs(images: Sequence[pathlib.Path], output: pathlib.Path, form: str | None = None) -> list[Job]:
    """Pairs every input image with its output file.

    Args:
      images: files, folders that are searched recursively for images, or `PIPE` for standard input.
      output: a file if there is one image; a folder, which need not exist, for any number of images; or `PIPE` for
        standard output. A path that has a suffix and is not an existing folder is taken as a file.
      form: the output format, a key of `FORMATS`; output files in a folder get its suffix.

    Returns:
      One job for each image. In an output folder, files keep their names, and subfolders their structure.

    Raises:
      UserError: there are no images, two of them have the same output file, or an output file is one of the images.
    """
    jobs = _list_jobs(images, output, form)
    originals = {job.image.resolve() for job in jobs if job.image != PIPE}
    for job in jobs:
        if job.target != PIPE and job.target.resolve() in originals:
            raise UserError(f"{job.target} is one of the input images: choose another output")
    return jobs


def _list_jobs(images: Sequence[pathlib.Path], output: pathlib.Path, form: str | None) -> list[Job]:
    if len(images) == 1 and not images[0].is_dir() and (output == PIPE or (output.suffix and not output.is_dir())):
        return [Job(images[0], output)]
    if PIPE in (output, *images):
        raise UserError("standard input and output (-) carry one image: name one input and one output")
    jobs = []
    for image in images:
        found = [image]
        if image.is_dir():
            found = sorted(
                path for path in image.rglob("*") if path.suffix.lower() in READABLE_SUFFIXES and path.is_file()
            )
            if output.resolve() != image.resolve():  # It holds the results of an earlier run.
                found = [path for path in found if output.resolve() not in path.resolve().parents]
        for path in found:
            target = output / (path.relative_to(image) if image.is_dir() else path.name)
            if form or path.suffix.lower() not in _WRITABLE:
                target = target.with_suffix(FORMATS[form or "PNG"].suffixes[0])
            jobs.append(Job(path, target))
    if not jobs:
        raise UserError(
            f"no images found in {', '.join(map(str, images))}: name a folder that contains PNG, JPEG, ... files"
        )
    taken: dict[pathlib.Path, pathlib.Path] = {}
    for job in jobs:
        if taken.setdefault(job.target, job.image) is not job.image:
            raise UserError(
                f"{taken[job.target]} and {job.image} have the same output file {job.target}: upscale them separately"
            )
    return jobs


def _check_memory(job: Job, form: str, to: Enlargement, options: Options) -> bool:
    """Returns whether the result is too large to keep in memory; `UserError` if its format needs it whole."""
    on_cpu = jax.local_devices()[0].platform == "cpu"
    budget = options.memory if options.memory and on_cpu else free_memory()
    if to.nbytes <= budget // 4:
        return False
    if not FORMATS[form].in_strips:
        raise UserError(
            f"{job.target} does not fit in memory ({to.nbytes >> 20} MB), as {form} requires: choose PNG or TIFF, "
            "which are written strip by strip"
        )
    return True


class _Pipeline:
    """Decodes, upscales and encodes several images concurrently, using all local devices."""

    def __init__(self, network: A2F, folded: Params, jobs: Sequence[Job], options: Options):
        self.scale = network.scale
        self.jobs = jobs
        self.options = options
        self.devices = jax.local_devices()[: len(jobs)]
        self.busy = 0.0
        self.stopped = threading.Event()  # set to interrupt the images being computed
        self._free: queue.Queue[Upscaler] = queue.Queue()
        for device in self.devices:
            self._free.put(
                Upscaler(
                    network,
                    folded,
                    memory=options.memory,
                    tile=options.tile,
                    ensemble=options.ensemble,
                    device=device,
                    verbose=options.verbose,
                )
            )

    @contextlib.contextmanager
    def _device(self) -> Iterator[Upscaler]:
        upscaler = self._free.get()
        start = time.perf_counter()
        try:
            yield upscaler
        finally:
            self.busy += time.perf_counter() - start
            self._free.put(upscaler)

    def run(self, job: Job) -> dict[str, Any]:
        """Upscales one file and returns its entry in the report; raises `UserError` if it fails."""
        about: dict[str, Any] = {"image": str(job.image), "output": str(job.target)}
        if job.target != PIPE and job.target.exists() and not self.options.overwrite:
            if self.options.resume:
                return {**about, "status": "skipped"}
            raise UserError(f"{job.target} exists: choose another output or pass --overwrite")
        form = self.options.form
        if not form and job.target != PIPE:
            form = format_of(job.target)
        start = time.perf_counter()
        picture = read_picture(sys.stdin.buffer.read() if job.image == PIPE else job.image, self.options.pixel_limit)
        form = form or (picture.format if picture.format in FORMATS else "PNG")
        try:
            to = enlargement_of(picture, self.scale, self.options.target, FORMATS[form].sixteen_bit)
        except UserError as error:
            raise UserError(f"{job.image}: {error}") from error
        check_format(form, str(job.target), picture, to.height, to.width)
        self._upscale(job, form, picture, to)
        seconds = round(time.perf_counter() - start, 3)
        return {**about, "status": "done", "width": to.width, "height": to.height, "seconds": seconds}

    def _upscale(self, job: Job, form: str, picture: Picture, to: Enlargement) -> None:
        shape = to.height, to.width, to.channels
        if _check_memory(job, form, to, self.options):
            with self._device() as upscaler, _opened(job.target) as file, self._bar(upscaler, picture, to) as bar:
                strips = enlarge(upscaler, picture, to, self._progress(bar))
                write_picture(file, form, shape, to.dtype, strips, picture, self.options.quality)
            return
        with self._device() as upscaler, self._bar(upscaler, picture, to) as bar:
            result = list(enlarge(upscaler, picture, to, self._progress(bar)))
        with _opened(job.target) as file:
            write_picture(file, form, shape, to.dtype, result, picture, self.options.quality)

    def _progress(self, bar: tqdm) -> Callable[[int], None]:
        def advance(count: int) -> None:
            if self.stopped.is_set():
                raise UserError("interrupted")
            bar.update(count)

        return advance

    def _bar(self, upscaler: Upscaler, picture: Picture, to: Enlargement) -> tqdm:
        alone = len(self.jobs) == 1
        total = steps(upscaler, picture, to) if alone else None
        return tqdm(total=total, unit="tile", disable=not alone, delay=2, leave=False)


@contextlib.contextmanager
def _opened(target: pathlib.Path) -> Iterator[Any]:
    if target != PIPE:
        with replacing(target) as file:
            yield file
        return
    buffer = io.BytesIO()  # The TIFF writer seeks, which a pipe does not support.
    yield buffer
    sys.stdout.buffer.write(buffer.getvalue())
    sys.stdout.buffer.flush()


def upscale_files(
    network: A2F,
    folded: Params,
    images: Sequence[pathlib.Path],
    output: pathlib.Path,
    options: Options = Options(),
    report: pathlib.Path | None = None,
) -> None:
    """Upscales image files. A file that fails is reported on standard error and does not stop the others.

    Args:
      network: a network without weight normalization, such as `Model.inference_network`.
      folded: its parameters, such as `Model.folded`.
      images: files, folders that are searched recursively for images, or `PIPE` for standard input.
      output: a file if there is one image; a folder, which need not exist, for any number of images; or `PIPE` for
        standard output.
      options: how the files are upscaled.
      report: a JSON file to write, with every image with its status (`"done"`, `"skipped"` or `"failed"`) and error.

    Raises:
      UserError: at least one file failed. With several files, the message lists the names of those that failed.
    """
    jobs = list_jobs(images, output, options.form)
    if report and report.resolve() in {path.resolve() for job in jobs for path in (job.image, job.target)}:
        raise UserError(f"the report {report} would replace an image: choose another name for the report")
    pipeline = _Pipeline(network, folded, jobs, options)
    results: list[dict[str, Any]] = []
    failures: list[UserError] = []
    start = time.perf_counter()
    with (
        _pillow_limit_disabled(),
        concurrent.futures.ThreadPoolExecutor(len(pipeline.devices) + 1) as pool,
        tqdm(total=len(jobs), unit="image", disable=len(jobs) == 1) as bar,
    ):
        futures = {pool.submit(pipeline.run, job): job for job in jobs}
        try:
            for future in concurrent.futures.as_completed(futures):
                job = futures.pop(future)
                try:
                    results.append(future.result())
                except Exception as unexpected:  # Whatever it is, it must not stop the other images.
                    error = unexpected
                    if not isinstance(error, UserError):
                        error = UserError(f"{job.image}: {type(error).__name__}: {' '.join(str(error).split())}")
                    failures.append(error)
                    about = {"image": str(job.image), "output": str(job.target)}
                    results.append({**about, "status": "failed", "error": str(error)})
                    if len(jobs) > 1:
                        tqdm.write(f"a2f: {error}", file=sys.stderr)
                bar.update()
        except BaseException:
            pipeline.stopped.set()
            pool.shutdown(cancel_futures=True)
            raise
    seconds = time.perf_counter() - start
    done = sum(result["status"] == "done" for result in results)
    if report:
        results.sort(key=lambda result: result["image"])
        with replacing(report) as file:
            file.write(json.dumps({"images": results, "seconds": round(seconds, 3)}, indent=2).encode())
    if done > 1:
        waiting = max(0.0, 1 - pipeline.busy / (seconds * len(pipeline.devices)))
        print(f"{done} images, {done / seconds:.3g} images/s, devices idle {waiting:.0%} of the time", file=sys.stderr)
    if len(jobs) == 1 and failures:
        raise failures[0]
    if failures:
        names = [result["image"] for result in results if result["status"] == "failed"]
        listed = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        raise UserError(f"{len(failures)} of {len(jobs)} images failed: {listed} (reasons above)")


@contextlib.contextmanager
def _pillow_limit_disabled() -> Iterator[None]:
    # `read_picture` checks the number of pixels itself, against `Options.pixel_limit`.
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
