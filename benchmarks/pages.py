"""Writes what was measured into the pages that show it."""

import pathlib
import re


def write_between(page: pathlib.Path, mark: str, text: str) -> None:
    """Replaces what stands between `<!-- mark -->` and `<!-- /mark -->` of a page."""
    written, count = re.subn(
        rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)",
        lambda match: f"{match[1]}{text}\n{match[2]}",
        page.read_text(),
        flags=re.DOTALL,
    )
    if not count:
        raise SystemExit(f"{page} has no place for it: <!-- {mark} --> and <!-- /{mark} -->")
    page.write_text(written)
