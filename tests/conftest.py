"""Fixtures that several test files share."""

import os
import pathlib

import pytest


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder with benchmark images, published weights and golden outputs; without it the test is skipped."""
    folder = os.environ.get("A2F_SHARED")
    if not folder:
        pytest.skip("needs published weights and benchmark images: set A2F_SHARED to their folder")
    return pathlib.Path(folder)
