"""Fixtures and settings that all tests share."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types
import urllib.error
import urllib.request
import uuid

# Before JAX is imported, also for subprocesses: the compilers for TPUs and GPUs are installed, the devices are not.
os.environ["JAX_PLATFORMS"] = "cpu"
# A setting that some users have, because it finds mistakes: arrays of different rank are not broadcast implicitly.
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"

import jax
import jax.numpy as jnp
import numpy as np
import pytest

# Before any computation: the tests of parallel training need several devices, which a CPU can simulate.
jax.config.update("jax_num_cpu_devices", 8)

# Tests and their subprocesses share one compilation cache, separate from the user's.
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit the folder
    compiled = tempfile.TemporaryDirectory(prefix="a2f-test-compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled.name
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="module")
def quick_compilation():
    """Disables optimizations: for tiny networks they take more time than they save."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def without_nohup():
    """Lets SIGHUP have its effect, also if the tests were started with `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def storage():
    """Starts an emulator of Google Cloud Storage with the bucket `bucket`, to which `gs://` refers from then on."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    program = pathlib.Path(__file__).with_name("gcs_emulator.py")
    address = f"http://localhost:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", address)
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", address)
        process = subprocess.Popen(
            [sys.executable, program, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            until = time.monotonic() + 30
            while True:
                try:
                    urllib.request.urlopen(f"{address}/storage/v1/b/bucket/o").close()
                    break
                except urllib.error.URLError:
                    assert process.poll() is None
                    assert time.monotonic() < until
                    time.sleep(0.05)
            yield address
        finally:
            process.terminate()
            process.wait()


@pytest.fixture
def bucket(storage, tmp_path, monkeypatch) -> str:
    """The URL of an empty folder in a bucket of an emulator. The user's cache is empty as well."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return f"gs://bucket/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder with benchmark images, published weights and golden outputs; tests are skipped without it."""
    folder = os.environ.get("A2F_SHARED")
    if not folder:
        pytest.skip("needs published weights and benchmark images: set A2F_SHARED to their folder")
    return pathlib.Path(folder)


@pytest.fixture(scope="session")
def random_params():
    """Returns `random_params(network, seed=0)`, which draws parameters that all differ from their initial values.

    A parameter that the code under test ignores would therefore change a result. NumPy draws them because compiling
    the real initialization takes seconds per network.
    """

    def draw(network, seed=0):
        shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
        rng = np.random.default_rng(seed)

        def values(path, x):
            if not x.shape:  # lambda
                return np.float32(1 + 0.1 * rng.normal())
            fan_in = np.prod(x.shape[:-1]) if len(x.shape) > 1 else 100
            noise = rng.uniform(-1, 1, x.shape) * fan_in**-0.5
            return np.float32(noise + (path[-1].key == "g"))

        return jax.tree.map_with_path(values, shapes)

    return draw


@pytest.fixture(autouse=True)
def default_sigint():
    """Python's own handling of Ctrl-C, even if the tests run in the background of a script, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def set_free_space(monkeypatch):
    """Sets the free space of all disks in bytes: 1 TB at first, whatever the machine that runs the tests has."""

    def set_free(free):
        usage = types.SimpleNamespace(total=2**42, used=2**42 - free, free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    set_free(2**40)
    return set_free
