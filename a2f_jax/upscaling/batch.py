"""Many image files in, upscaled image files out; one bad file does not stop the others."""

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
"""Stands for standard input and output."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How files are upscaled.

    Attributes:
      overwrite: replace files that exist.
      resume: skip images whose results exist, as a stopped run left them.
      target: how large the results shall be, see `Target`.
      form: one of `FORMATS`, instead of the one that the name says.
      quality: see `write_picture`.
      pixel_limit: most pixels that an image may claim to have.
      memory: see `Upscaler`.
      tile: see `Upscaler`.
      ensemble: see `Upscaler`.
      verbose: see `Upscaler`.
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
    """One image and where its result goes."""

    image: pathlib.Path
    target: pathlib.Path


def list_jobs(images: Sequence[pathlib.Path], output: pathlib.Path, form: str | None = None) -> list[Job]:
    """Says where each result goes.

    Args:
      images: files and folders, whose images are found at any depth; "-" is the standard input.
      output: a file, for one image; a folder, which need not exist, for any number; "-" for the standard output.
        What has an ending and is not a folder counts as a file.
      form: one of `FORMATS`, whose ending the results get in a folder.

    Returns:
      The jobs: results have their images' names, and a folder keeps its structure.

    Raises:
      UserError: there is no image, two would be written to the same file, or one would replace an original.
    """
    jobs = _list_jobs(images, output, form)
    originals = {job.image.resolve() for job in jobs if job.image != PIPE}
    for job in jobs:
        if job.target != PIPE and job.target.resolve() in originals:
            raise UserError(f"{job.target} would replace an original: choose another output")
    return jobs


def _list_jobs(images: Sequence[pathlib.Path], output: pathlib.Path, form: str | None) -> list[Job]:
    if len(images) == 1 and not images[0].is_dir() and (output == PIPE or (output.suffix and not output.is_dir())):
        return [Job(images[0], output)]
    if PIPE in (output, *images):
        raise UserError("- is for one image and one result: name a file for the other, or - again")
    jobs = []
    for image in images:
        found = [image]
        if image.is_dir():
            found = sorted(
                path for path in image.rglob("*") if path.suffix.lower() in READABLE_SUFFIXES and path.is_file()
            )
            if output.resolve() != image.resolve():  # results of an earlier run are no originals
                found = [path for path in found if output.resolve() not in path.resolve().parents]
        for path in found:
            target = output / (path.relative_to(image) if image.is_dir() else path.name)
            if form or path.suffix.lower() not in _WRITABLE:
                target = target.with_suffix(FORMATS[form or "PNG"].suffixes[0])
            jobs.append(Job(path, target))
    if not jobs:
        raise UserError(
            f"there are no images in {', '.join(map(str, images))}: name a folder with PNG, JPEG, ... files"
        )
    taken: dict[pathlib.Path, pathlib.Path] = {}
    for job in jobs:
        if taken.setdefault(job.target, job.image) is not job.image:
            raise UserError(
                f"{taken[job.target]} and {job.image} would both be written to {job.target}: upscale them separately"
            )
    return jobs


def _check_memory(job: Job, form: str, to: Enlargement, options: Options) -> bool:
    """Whether a result is too large to be kept; `UserError` if its format needs that."""
    on_cpu = jax.local_devices()[0].platform == "cpu"
    budget = options.memory if options.memory and on_cpu else free_memory()
    if to.nbytes <= budget // 4:
        return False
    if not FORMATS[form].in_strips:
        raise UserError(
            f"{job.target} would take {to.nbytes >> 20} MB, too much to be made at once as {form}: choose PNG or TIFF, "
            "which are written strip by strip"
        )
    return True


class _Pipeline:
    """Decodes, computes and encodes several images at the same time, on every device."""

    def __init__(self, network: A2F, folded: Params, jobs: Sequence[Job], options: Options):
        self.scale = network.scale
        self.jobs = jobs
        self.options = options
        self.devices = jax.local_devices()[: len(jobs)]
        self.busy = 0.0
        self.stopped = threading.Event()  # ends what is being computed
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
        """Upscales one file; returns what the report says of it, or raises `UserError`."""
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
                raise UserError("stopped")
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
    buffer = io.BytesIO()  # TIFF goes back to fill in its tables, which a pipe cannot
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
    """Upscales files. A file that fails is reported on stderr and the others are still done.

    Args:
      network: what upscales them, see `Upscaler`.
      folded: its parameters.
      images: see `list_jobs`.
      output: see `list_jobs`.
      options: how.
      report: a JSON file that lists every image with its status ("done", "skipped" or "failed") and error.

    Raises:
      UserError: at least one file could not be upscaled; with several files the message is the summary.
    """
    jobs = list_jobs(images, output, options.form)
    if report and report.resolve() in {path.resolve() for job in jobs for path in (job.image, job.target)}:
        raise UserError(f"--report {report} is an image: choose another name for the report")
    pipeline = _Pipeline(network, folded, jobs, options)
    results: list[dict[str, Any]] = []
    failures: list[UserError] = []
    start = time.perf_counter()
    with (
        _no_limit_of_pillow(),
        concurrent.futures.ThreadPoolExecutor(len(pipeline.devices) + 1) as pool,
        tqdm(total=len(jobs), unit="image", disable=len(jobs) == 1) as bar,
    ):
        futures = {pool.submit(pipeline.run, job): job for job in jobs}
        try:
            for future in concurrent.futures.as_completed(futures):
                job = futures.pop(future)
                try:
                    results.append(future.result())
                except Exception as unexpected:  # one image must not stop the others, whatever it is
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
        print(
            f"{done} images, {done / seconds:.3g} images/s, devices waited {waiting:.0%} of the time", file=sys.stderr
        )
    if len(jobs) == 1 and failures:
        raise failures[0]
    if failures:
        names = [result["image"] for result in results if result["status"] == "failed"]
        listed = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        raise UserError(f"{len(failures)} of {len(jobs)} images failed: {listed}; see above for the reasons")


@contextlib.contextmanager
def _no_limit_of_pillow() -> Iterator[None]:
    """Leaves the check of an image's size, before anything is decoded, to `read_picture`."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
