"""Checks that the lists of the catalog agree with each other and with what is installed."""

import importlib
import importlib.util
import subprocess
import sys

import pytest

from a2f_jax import catalog


def test_no_suffix_is_listed_twice():
    suffixes = catalog.READABLE_SUFFIXES + catalog.OTHER_IMAGE_SUFFIXES
    assert len(set(suffixes)) == len(suffixes)
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in suffixes)


def test_files_named_jfif_are_jpeg_files():
    assert ".jfif" in catalog.READABLE_SUFFIXES
    assert ".jfif" in catalog.FORMATS["JPEG"].suffixes


@pytest.mark.parametrize("installed", [False, True])
def test_suffixes_of_a_plugin_are_readable_if_it_is_installed(monkeypatch, installed):
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)
        importlib.reload(catalog)
        assert (".heic" in catalog.READABLE_SUFFIXES) == installed
        assert (".jxl" in catalog.OTHER_IMAGE_SUFFIXES) == (not installed)
    importlib.reload(catalog)


def test_importing_the_catalog_imports_no_large_library():
    code = "import sys, a2f_jax.catalog; print(*({'jax', 'numpy', 'PIL'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == ""
