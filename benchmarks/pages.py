"""What benchmarks write: JSON files, and tables in the documentation pages that show them.

Benchmarks take minutes, so what they will write to is checked when their arguments are parsed.
"""

import argparse
import pathlib
import re
from collections.abc import Callable

from a2f_jax.errors import UserError
from a2f_jax.files import check_file_writable


def output_file(text: str) -> pathlib.Path:
    """Returns the path of a file to write, for use as the `type` of an argument. Its folder is created."""
    path = pathlib.Path(text)
    try:
        check_file_writable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
    except (UserError, OSError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return path


def _table(mark: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)


def page_with(*marks: str) -> Callable[[str], pathlib.Path]:
    """Returns the `type` of an argument for a page that has the markers of these tables."""

    def page(text: str) -> pathlib.Path:
        path = pathlib.Path(text)
        try:
            content = path.read_text()
            check_file_writable(path)
        except (UserError, OSError, UnicodeDecodeError) as error:
            raise argparse.ArgumentTypeError(f"cannot change {text}: {error}") from None
        for mark in marks:
            if not _table(mark).search(content):
                raise argparse.ArgumentTypeError(f"{text} lacks the markers <!-- {mark} --> and <!-- /{mark} -->")
        return path

    return page


def write_between(page: pathlib.Path, mark: str, text: str) -> None:
    """Replaces the text between `<!-- mark -->` and `<!-- /mark -->` in a page."""
    written, count = _table(mark).subn(lambda match: f"{match[1]}{text}\n{match[2]}", page.read_text())
    if not count:
        raise SystemExit(f"{page} lacks the markers <!-- {mark} --> and <!-- /{mark} -->")
    page.write_text(written)
