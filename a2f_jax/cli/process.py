"""Set-up of the process that runs a command: its output streams, Ctrl-C, and the log messages of libraries."""

import codecs
import contextlib
import ctypes
import glob
import importlib.util
import io
import os
import signal
import sys
import threading
import types
import unicodedata
from collections.abc import Iterator
from typing import Any, NoReturn, TextIO, cast

from a2f_jax.signals import LastSignal, termination_signals

_PLAIN = {"×": "x", "·": "*", "–": "-", "—": "-", "−": "-", "±": "+/-", "→": "->", "…": "...", "≥": ">=", "≤": "<="}
_RESEND_DELAY = 0.05

# Cloud TPUs, NVIDIA GPUs, those of Windows in WSL, AMD and Intel GPUs.
_DEVICE_FILES = ("/dev/accel*", "/dev/vfio/*", "/dev/nvidia*", "/dev/dxg", "/dev/kfd", "/dev/dri/*")

# Of mallopt(3): M_ARENA_MAX = 1, M_MMAP_MAX = 0, and M_TRIM_THRESHOLD = -1, which turns returning memory off.
_KEEP_FREED_MEMORY = {-8: 1, -4: 0, -1: -1}


def _in_plain_text(error: UnicodeError) -> tuple[str | bytes, int]:
    # An error handler of `codecs`: what to write in place of characters that the stream's encoding lacks.
    if not isinstance(error, UnicodeEncodeError):
        raise error
    char = error.object[error.start]
    if "\udc80" <= char <= "\udcff":  # a byte of a file name that is not valid text: written as it is
        return bytes([ord(char) - 0xDC00]), error.start + 1
    letters = "".join(c for c in unicodedata.normalize("NFKD", char) if c.isascii())
    return _PLAIN.get(char) or letters or "?", error.start + 1


def set_up_streams() -> None:
    """Lets standard output and standard error replace characters that their encoding lacks, such as `×` by `x`."""
    codecs.register_error("a2f_plain_text", _in_plain_text)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="a2f_plain_text")


class _Undisturbed:
    """A stream that discards what it is given once it can no longer be written to."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._discard()

    def _discard(self) -> None:
        with contextlib.suppress(OSError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Lets the work in the block go on when nobody can read standard error any more.

    That is so when the terminal is closed, or the reader of a pipe has ended, such as `head` or a logger.
    """
    stream = sys.stderr
    sys.stderr = cast(TextIO, _Undisturbed(stream))
    try:
        yield
    finally:
        sys.stderr = stream


def _has_accelerator() -> bool:
    return any(glob.glob(pattern) for pattern in _DEVICE_FILES)


def _has_compiler() -> bool:
    return any(importlib.util.find_spec(name) for name in ("libtpu", "jax_plugins"))


def _computes_on_cpu() -> bool:
    platforms = os.environ.get("JAX_PLATFORMS")
    return platforms.split(",")[0] == "cpu" if platforms else not (_has_compiler() and _has_accelerator())


def skip_missing_accelerators() -> None:
    """Makes JAX use only the CPU on a Linux machine where compilers for accelerators are installed without a device.

    The extra [compile] installs them for `--compile-for`. JAX would try each, which takes seconds and prints errors.
    The environment variable JAX_PLATFORMS takes precedence.
    """
    if sys.platform == "linux" and _has_compiler() and not _has_accelerator():
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def reuse_freed_memory() -> None:
    """Makes glibc keep freed memory for the next allocation, if JAX is going to compute on a CPU.

    XLA allocates the working memory of a program each time the program runs. By default, glibc gets such large blocks
    from the system and returns them, so that the system clears hundreds of megabytes in every training step. This has
    to be called before the first thread starts: later, threads have memory areas of their own, which cannot hold large
    blocks. The process keeps the memory that it once needed. Settings of glibc's memory in the environment, which are
    `MALLOC_*` and `GLIBC_TUNABLES=glibc.malloc.*`, take precedence.
    """
    chosen = "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "") or any(x.startswith("MALLOC_") for x in os.environ)
    if sys.platform != "linux" or chosen or not _computes_on_cpu():
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries do not have it
    if mallopt is not None:
        for option, value in _KEEP_FREED_MEMORY.items():
            mallopt(option, value)


def quiet_libraries() -> None:
    """Hides log messages of libraries about errors that are reported in one line, and about their own internals."""
    import logging
    import warnings

    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.FATAL)
    for library in ("asyncio", "PIL"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"PIL\b")  # metadata that it cannot read is dropped
    # Without the cache, such as in a read-only home folder, everything works as well.
    warnings.filterwarnings("ignore", message=r"Error (reading|writing) persistent compilation cache")


_last = LastSignal()  # of any kind


def _stop() -> None:
    if not _last.is_recent():
        _last.note()
        raise KeyboardInterrupt


class _Interrupt:
    """The handler of SIGINT."""

    def __init__(self, ends_process: bool):
        self._ends_process = ends_process
        self.ending = False  # whether the block is being left, or has been

    def __call__(self, _: int, frame: types.FrameType | None) -> None:
        if self.ending and self._ends_process and not _last.is_recent():
            # An exception would leave threads running, which abort the process when Python ends.
            self._exit()
        while frame and not self.ending:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                # An exception that is raised inside the initialization of a native library can abort the process, be
                # swallowed, or surface as an ImportError. Commands import before they work: nothing is left to clean
                # up.
                self._exit()
            frame = frame.f_back
        self.ending = True
        _stop()

    @staticmethod
    def _exit() -> NoReturn:
        os.write(2, b"a2f: stopped\n")
        os._exit(130)


@contextlib.contextmanager
def interruptible(*, ends_process: bool = False) -> Iterator[None]:
    """Makes Ctrl-C stop the block with `KeyboardInterrupt`, wherever it happens to arrive.

    While a module is being imported, the process exits with code 130 instead. If the exception is raised inside a
    callback that cannot propagate it, such as one of the garbage collector, it is raised again after the callback.
    While the work is being ended, Ctrl-C is ignored for a second, because some programs send it twice. SIGINT is left
    alone where it is ignored, as for a background job, or already handled by a caller.

    Args:
      ends_process: whether the process ends after the block. A later Ctrl-C then ends it at once, also after the block,
        because an exception while Python and JAX end their threads would abort the process.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    report_unraisable = sys.unraisablehook

    def resend(unraisable: Any) -> None:
        if unraisable.exc_type is not KeyboardInterrupt:
            report_unraisable(unraisable)
            return
        _last.forget()
        interrupt.ending = False
        timer = threading.Timer(_RESEND_DELAY, os.kill, (os.getpid(), signal.SIGINT))
        timer.daemon = True
        timer.start()

    _last.forget()
    interrupt = _Interrupt(ends_process)
    signal.signal(signal.SIGINT, interrupt)
    sys.unraisablehook = resend
    try:
        yield
    finally:
        sys.unraisablehook = report_unraisable
        if ends_process:
            _last.note()
            interrupt.ending = True
        else:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Makes SIGTERM, and the end of the terminal, end the block as Ctrl-C does.

    So no incomplete or temporary files are left behind.
    """

    def stop(*_: object) -> None:
        _stop()

    if threading.current_thread() is not threading.main_thread():  # only this one can set handlers
        yield
        return
    before = {number: signal.signal(number, stop) for number in termination_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def missing_device() -> str | None:
    """Returns why JAX has no device to compute on, in one line, or None if it has one or has not been imported."""
    if "jax" not in sys.modules:
        return None
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter for a platform whose plugin is not installed
        platforms = os.environ.get("JAX_PLATFORMS")
        if platforms:
            return (
                f"JAX has no device for JAX_PLATFORMS={platforms}: unset it, or install JAX for that device with the "
                "extra [cuda] or [tpu]"
            )
        return f"JAX has no device to compute on ({' '.join(str(error).split())}): set JAX_PLATFORMS=cpu to use the CPU"
    return None
