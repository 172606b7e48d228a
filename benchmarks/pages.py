"""Writes tables into the documentation pages that show them."""

import pathlib
import re


def write_between(page: pathlib.Path, mark: str, text: str) -> None:
    """Replaces the text between `<!-- mark -->` and `<!-- /mark -->` in a page."""
    written, count = re.subn(
        rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)",
        lambda match: f"{match[1]}{text}\n{match[2]}",
        page.read_text(),
        flags=re.DOTALL,
    )
    if not count:
        raise SystemExit(f"{page} lacks the markers <!-- {mark} --> and <!-- /{mark} -->")
    page.write_text(written)
