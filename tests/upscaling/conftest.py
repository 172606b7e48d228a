"""Fixtures for the tests of upscaling: a small model, and a counter of compilations."""

import contextlib

import jax
import pytest

from a2f_jax.model import Model
from a2f_jax.models.a2f import A2F


@pytest.fixture(scope="session")
def model(random_params):
    """A small A2F ×2 with more states than the smallest mixing program takes."""
    return Model.from_params(random_params(A2F(scale=2, features=8, blocks=5)))


_COMPILED: list[str] = []


@pytest.fixture(scope="session")
def _listening():
    def listen(event, _, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            _COMPILED.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)


@pytest.fixture
def compilations(_listening):
    """Returns a context manager that lists the programs that XLA compiles in its body."""

    @contextlib.contextmanager
    def collect():
        new: list[str] = []
        start = len(_COMPILED)
        yield new
        new += _COMPILED[start:]

    return collect
