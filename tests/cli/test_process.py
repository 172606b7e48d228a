"""The set-up of the process: text that a stream cannot encode, streams that nobody reads, and Ctrl-C."""

import io
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import types
import warnings

import pytest
from PIL import Image

from a2f_jax.cli import process
from a2f_jax.cli.process import (
    interruptible,
    quiet_libraries,
    set_up_streams,
    skip_missing_accelerators,
    undisturbed,
)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", "×4 – façade Δ".encode() + b"\xff"),
        ("latin-1", b"\xd74 - fa\xe7ade ?\xff"),
        ("ascii", b"x4 - facade ?\xff"),
    ],
)
def test_characters_that_a_stream_cannot_encode_become_plain_text(encoding, expected, monkeypatch):
    for name in ("stdout", "stderr"):
        buffer = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, name, io.TextIOWrapper(buffer, encoding))
            set_up_streams()
            getattr(sys, name).write("×4 – façade Δ" + os.fsdecode(b"\xff"))  # a file name that is not valid text
            getattr(sys, name).flush()
            assert buffer.getvalue() == expected


def test_messages_that_nobody_can_read_are_discarded(monkeypatch):
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        with undisturbed():
            print("read", file=sys.stderr, flush=True)
            assert os.read(reader, 99) == b"read\n"
            os.close(reader)
            print("lost", file=sys.stderr, flush=True)
            print("x" * 10**6, file=sys.stderr)
        assert sys.stderr is stream


def test_a_command_goes_on_when_the_reader_of_its_messages_has_ended(photo, weights, tmp_path):
    # One after the other, and the second after the message about the first.
    run = "import sys; from a2f_jax.cli import main; sys.exit(main())"
    reader, writer = os.pipe()
    os.close(reader)
    arguments = ["upscale", photo, str(shutil.copy(photo, tmp_path / "b.png")), "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", run, *arguments, "--verbose", "--weights", weights], stderr=writer, check=False
    )
    os.close(writer)
    assert done.returncode == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


def test_ctrl_c_raises_keyboard_interrupt():
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_inside_a_callback_that_swallows_exceptions_is_raised_after_it():
    class Resource:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    hook = sys.unraisablehook
    with interruptible():
        resource = Resource()
        del resource
        with pytest.raises(KeyboardInterrupt):
            time.sleep(60)
    assert sys.unraisablehook is hook


@pytest.mark.parametrize(
    ("pause", "ends_process", "code", "output"),
    [
        (0, True, 0, "ended\n"),
        (0, False, 0, "ended\n"),
        (1.1, True, 130, ""),
        (1.1, False, 0, "again\n"),  # such as a notebook, whose kernel must not end
    ],
)
def test_a_second_ctrl_c_waits_for_the_end_of_the_work_but_not_for_long(pause, ends_process, code, output):
    program = (
        "import signal, time\n"
        "from a2f_jax.cli.process import interruptible\n"
        f"with interruptible(ends_process={ends_process}):\n"
        "    try:\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    except KeyboardInterrupt:\n"
        f"        time.sleep({pause})\n"
        "        try:\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "            print('ended')\n"
        "        except KeyboardInterrupt:\n"
        "            print('again')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, output)


def test_ctrl_c_stays_ignored_in_a_background_job():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_during_an_import_exits_at_once():
    # The import of JAX stands for any: there, an exception could abort the process or be swallowed.
    program = (
        "import signal, sys\n"
        "from a2f_jax import cli\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'jax': signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "sys.exit(cli.main(['info', 'a2f-sd-x4']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "a2f: stopped\n")


def test_warnings_about_metadata_of_images_and_a_cache_that_cannot_be_used_are_hidden():
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        quiet_libraries()
        Image.Exif().load(b"Exif\0\0II*\0\xff\0\0\0")
        warnings.warn("Error writing persistent compilation cache entry for 'jit_f': PermissionError", stacklevel=1)
        assert not shown
        warnings.warn("other", stacklevel=1)
    assert [str(warning.message) for warning in shown] == ["other"]


@pytest.mark.parametrize(
    ("device_files", "chosen", "platforms"),
    [([], None, "cpu"), (["/dev/nvidia0"], None, None), ([], "tpu", "tpu")],
)
def test_only_the_cpu_is_used_where_no_accelerator_exists(monkeypatch, device_files, chosen, platforms):
    monkeypatch.setattr(process.glob, "glob", lambda pattern: [f for f in device_files if f.startswith(pattern[:11])])
    monkeypatch.setattr(process.importlib.util, "find_spec", lambda name: name == "libtpu")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("JAX_PLATFORMS")
    if chosen:
        monkeypatch.setenv("JAX_PLATFORMS", chosen)
    skip_missing_accelerators()
    assert os.environ.get("JAX_PLATFORMS") == platforms
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")


_ALLOCATIONS = """
import ctypes, resource
from a2f_jax.cli import process

process.reuse_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
for i in range(11):
    if i == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(64 << 20)
    libc.memset(block, 1, 64 << 20)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


_needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="sets options of glibc")


def _printed(*command, **changes):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_"))}
    return subprocess.run(command, env={**kept, **changes}, check=False, stdout=subprocess.PIPE, text=True).stdout


@_needs_glibc
@pytest.mark.parametrize(
    ("changes", "reused"),
    [({}, True), ({"MALLOC_ARENA_MAX": "8"}, False), ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=8"}, False)],
)
def test_freed_memory_is_reused_unless_the_environment_has_settings(changes, reused):
    new_pages = int(_printed(sys.executable, "-c", _ALLOCATIONS, JAX_PLATFORMS="cpu", **changes))
    of_one_block = 64 // 2  # at least, in huge pages of 2 MB
    assert new_pages < of_one_block if reused else new_pages >= 10 * of_one_block


@pytest.mark.parametrize(
    ("accelerator", "compiler", "platforms", "reused"),
    [
        (False, True, None, True),
        (True, False, None, True),  # a graphics chip, and JAX for CPUs
        (True, True, None, False),
        (True, True, "cpu", True),
        (True, True, "cpu,cuda", True),
        (True, True, "cuda,cpu", False),
        (True, True, "", False),
    ],
)
def test_freed_memory_is_reused_only_where_jax_computes_on_a_cpu(monkeypatch, accelerator, compiler, platforms, reused):
    calls = []
    library = types.SimpleNamespace(mallopt=lambda option, value: calls.append(option))
    monkeypatch.setattr(process, "_has_accelerator", lambda: accelerator)
    monkeypatch.setattr(process, "_has_compiler", lambda: compiler)
    monkeypatch.setattr(process.ctypes, "CDLL", lambda _: library)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_", "JAX_PLATFORMS"))]:
        monkeypatch.delenv(name)
    if platforms is not None:
        monkeypatch.setenv("JAX_PLATFORMS", platforms)
    process.reuse_freed_memory()
    assert len(calls) == (3 if reused else 0)
    del library.mallopt
    process.reuse_freed_memory()  # another C library


_TRAIN = """
import os, sys
import a2f_jax.cli.main

module = sys.modules["a2f_jax.cli.main"]
module.reuse_freed_memory = lambda: print(len(os.listdir("/proc/self/task")), "jax" in sys.modules)
sys.argv = ["a2f", "train", "--config", "missing.py", "--workdir", "run"]
module.main()
"""


@_needs_glibc
def test_training_reuses_freed_memory_from_before_threads_start():
    assert _printed(sys.executable, "-c", _TRAIN) == "1 False\n"
