"""Where benchmarks write is checked before they measure, and nothing is changed by that."""

import argparse
import importlib
import os
import pathlib

import pytest


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("pages")


def test_the_folder_of_an_output_is_created_and_existing_files_stay(pages, tmp_path):
    assert pages.output_file(f"{tmp_path}/new/result.json") == tmp_path / "new/result.json"
    assert list((tmp_path / "new").iterdir()) == []
    for name in ("empty", "link"):
        (tmp_path / "empty").touch()
        if name == "link":
            (tmp_path / name).symlink_to("missing")
        pages.output_file(f"{tmp_path}/{name}")
        assert os.path.lexists(tmp_path / name)


@pytest.mark.parametrize("name", ["file/result.json", "", "/dev/null"])
def test_an_output_that_cannot_be_written_is_refused(pages, tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(argparse.ArgumentTypeError):
        pages.output_file(name if name.startswith("/") else f"{tmp_path}/{name}")
    assert os.path.exists("/dev/null")


def test_a_page_needs_the_markers_of_all_its_tables(pages, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- a -->\n<!-- /a -->\n")
    assert pages.page_with("a")(str(page)) == page
    with pytest.raises(argparse.ArgumentTypeError, match="lacks the markers <!-- b --> and <!-- /b -->"):
        pages.page_with("a", "b")(str(page))
    with pytest.raises(argparse.ArgumentTypeError, match=r"cannot change .*none\.md"):
        pages.page_with("a")(f"{tmp_path}/none.md")
    pages.write_between(page, "a", "| table |")
    assert page.read_text() == "<!-- a -->\n| table |\n<!-- /a -->\n"
