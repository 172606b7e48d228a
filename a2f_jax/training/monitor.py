"""Reports the progress of a training run: progress bar, log, metrics and sample images."""

import contextlib
import json
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, TextIO

import numpy as np
import tqdm

from a2f_jax.errors import UserError
from a2f_jax.images import write_rgb
from a2f_jax.progress import say
from a2f_jax.staging import mirrored
from a2f_jax.training import history


def _tensorboard_writer(workdir: pathlib.Path) -> Any:
    try:
        # clu's writers import TensorFlow, which only the extra `[tensorboard]` installs.
        from clu import metric_writers
    except ImportError:
        return None
    return metric_writers.SummaryWriter(str(workdir / "tensorboard"))


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours:02d}:{minutes:02d}" if days else f"{hours}:{minutes:02d}:{seconds:02d}"


def _end_last_line(file: pathlib.Path) -> None:
    # A machine that failed may have left half a line, which would spoil the next one.
    with file.open("r+b") as content:
        if content.seek(0, os.SEEK_END):
            content.seek(-1, os.SEEK_END)
            if content.read() != b"\n":
                content.write(b"\n")


class Monitor:
    """Writes `train.log`, `metrics.jsonl` and `samples/` to a work folder, and TensorBoard files if that is installed.

    On a terminal, a progress bar shows the latest metrics; elsewhere, each report is printed as a line. The files of a
    work folder in a bucket are written locally, and copied once a minute and at the end.

    Args:
      workdir: the work folder; created if it does not exist.
      active: whether to print and write anything. Of several processes, only the first should.

    Attributes:
      folder: the folder to write further files to: the work folder, or the local one that is copied to it.

    Raises:
      UserError: the work folder cannot be written.
    """

    def __init__(self, workdir: pathlib.Path, active: bool = True):
        self._active = active
        self._step = self._steps = self._images = 0
        self._stack = contextlib.ExitStack()
        self._psnr = ""
        self._latest: dict[str, float] = {}
        self._clock, self._clock_step, self._waited = time.perf_counter(), 0, 0.0
        self._bar: tqdm.tqdm | None = None
        self._writer: Any = None
        self._failed = False
        with contextlib.ExitStack() as opened:  # closes what is open already if the rest fails
            appended = ("train.log", history.FILE)
            self.folder = opened.enter_context(mirrored(workdir, appended if active else ()))
            if not active:
                self._stack = opened.pop_all()
                return
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._log, self._metrics = (
                    opened.enter_context(self._appending(self.folder / name)) for name in appended
                )
                _end_last_line(self.folder / history.FILE)
            except OSError as error:
                raise UserError(f"cannot write to the work folder {workdir}: {error.strerror or error}") from error
            self._writer = _tensorboard_writer(self.folder)
            if self._writer:
                opened.callback(self._writer.close)
            self._stack = opened.pop_all()

    def start(self, step: int, steps: int, images_per_step: int) -> None:
        """Starts the timer and the progress bar.

        Args:
          step: the number of updates done before this run started.
          steps: the number of updates at the end of the run.
          images_per_step: the global batch size, to compute the training speed.
        """
        self._step, self._steps, self._images = step, steps, images_per_step
        self._clock, self._clock_step = time.perf_counter(), step
        if self._active:
            logged = history.read_history(self.folder)
            if logged and logged[-1]["step"] > step:
                self.record(history.RESUMED, {})
            self._bar = self._stack.enter_context(
                tqdm.tqdm(total=steps, initial=step, unit="step", disable=None, dynamic_ncols=True)
            )

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def log(self, message: str) -> None:
        """Writes a message to `train.log`."""
        if self._active:
            with self._surviving("train.log"):
                print(message, file=self._log, flush=True)

    @contextlib.contextmanager
    def _appending(self, path: pathlib.Path) -> Iterator[TextIO]:
        file = path.open("a", encoding="utf-8")
        try:
            yield file
        finally:
            with self._surviving(path.name):
                file.close()  # which tries once more to write what could not be written

    @contextlib.contextmanager
    def _surviving(self, name: str) -> Iterator[None]:
        # A line that is lost must not end the run: a disk that stays full or away will end it when it is to be saved.
        try:
            yield
        except OSError as error:
            if not self._failed:
                say(f"cannot write {self.folder / name} ({error.strerror or error}): training goes on without it")
            self._failed = True

    def say(self, message: str) -> None:
        """Prints a message and writes it to `train.log`."""
        self.log(message)
        if self._active:
            tqdm.tqdm.write(message, file=sys.stderr)

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Counts the time spent in the block as waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Excludes the time spent in the block, such as validation, from the training speed."""
        start = time.perf_counter()
        yield
        self._clock += time.perf_counter() - start

    def advance(self, step: int) -> None:
        """Moves the progress bar to a step."""
        if self._bar is not None:
            self._bar.update(step - self._step)
        self._step = step

    def report(self, metrics: Mapping[str, float]) -> None:
        """Reports the metrics of training, averaged since the last report, and adds the training speed.

        Args:
          metrics: values by name, among them `loss` and `learning_rate`.
        """
        seconds = max(time.perf_counter() - self._clock, 1e-9)
        rate = (self._step - self._clock_step) / seconds
        waited = 100 * self._waited / seconds
        self._clock, self._clock_step, self._waited = time.perf_counter(), self._step, 0.0
        metrics = {**metrics, "images_per_second": rate * self._images, "waiting_percent": waited}
        self.record("train", metrics)
        if self._bar is None:
            return
        short = f"loss {metrics['loss']:.3f}{self._psnr}, {metrics['images_per_second']:.0f} images/s"
        self._bar.set_postfix_str(short)
        remaining = (self._steps - self._step) / rate if rate else float("inf")
        line = (
            f"step {self._step}/{self._steps}  {short}, lr {metrics['learning_rate']:.2g}, "
            f"waiting for data {waited:.1f} %, ETA {_duration(remaining)}"
        )
        self.log(line)
        if self._bar.disable:
            print(line, file=sys.stderr, flush=True)

    def validated(
        self,
        scores: Mapping[str, float],
        picture: np.ndarray | None,
        sets: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    ) -> None:
        """Reports the result of a validation.

        Args:
          scores: `psnr` in dB and `ssim`, on held-out images.
          picture: an SR image beside its HR image, uint8 `[H, W, 3]`, or None.
          sets: the same scores on whole datasets, by the name of the dataset.
        """
        self._psnr = f", PSNR {scores['psnr']:.2f} dB"
        named = {f"{name}/{metric}": value for name, each in sets.items() for metric, value in each.items()}
        self.record("validation", {**scores, **named})
        self.say(f"step {self._step}: validation PSNR {scores['psnr']:.3f} dB, SSIM {scores['ssim']:.4f}")
        for name, each in sets.items():
            self.say(f"step {self._step}: {name} PSNR {each['psnr']:.3f} dB, SSIM {each['ssim']:.4f}")
        if self._active and picture is not None:
            write_rgb(self.folder / "samples" / f"result-and-truth-{self._step:07d}.png", picture)
            if self._writer:
                self._writer.write_images(self._step, {"result and truth": picture[None]})

    def take_metrics(self) -> dict[str, float]:
        """Returns the metrics recorded since the last call, such as `"train/loss"`; none if this is not active."""
        latest, self._latest = self._latest, {}
        return latest

    def record(self, kind: str, metrics: Mapping[str, float]) -> None:
        """Appends values to `metrics.jsonl` and to TensorBoard's curves.

        Args:
          kind: the group of the values, such as `"train"`.
          metrics: values by name.
        """
        if not self._active:
            return
        numbers = {name: float(value) for name, value in metrics.items()}
        if kind in history.KINDS:
            self._latest |= {f"{kind}/{name}": value for name, value in numbers.items()}
        with self._surviving(history.FILE):
            print(json.dumps({"step": self._step, "kind": kind, **numbers}), file=self._metrics, flush=True)
            if self._writer:
                self._writer.write_scalars(self._step, {f"{kind}/{k}": v for k, v in numbers.items()})
                self._writer.flush()
