"""The report as a document: headings, paragraphs, tables and figures, rendered as Markdown and as HTML."""

import base64
import html
import re
from collections.abc import Sequence
from typing import NamedTuple


class Cells(NamedTuple):
    """A row of a table.

    Attributes:
      cells: the text of each cell.
      measured: whether the row was measured or computed for this report, and is therefore highlighted.
    """

    cells: Sequence[str]
    measured: bool = False


class Table(NamedTuple):
    """A table.

    Attributes:
      heading: the column names.
      rows: the rows, each with one cell per column.
      text_columns: the number of left-aligned text columns; the remaining columns hold numbers.
    """

    heading: Sequence[str]
    rows: Sequence[Cells]
    text_columns: int = 1


class PageFigure(NamedTuple):
    """A figure.

    Attributes:
      name: the file name without its suffix.
      caption: a description, which also serves as the alternative text.
      png: the content of the PNG file.
    """

    name: str
    caption: str
    png: bytes

    @property
    def path(self) -> str:
        """The path of the file, relative to the report."""
        return f"figures/{self.name}.png"


Part = str | Table | PageFigure


class Section(NamedTuple):
    """A section of the report.

    Attributes:
      title: the heading.
      parts: paragraphs, tables and figures in order. Backticks in a paragraph mark code.
    """

    title: str
    parts: Sequence[Part]


def _markdown_table(table: Table) -> str:
    rule = ["---"] * table.text_columns + ["---:"] * (len(table.heading) - table.text_columns)
    cells = [[cell.replace("|", "\\|") for cell in row.cells] for row in table.rows]  # labels are names of files
    rows = [
        [f"**{cell}**" if row.measured and cell else cell for cell in line]
        for row, line in zip(table.rows, cells, strict=True)
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [table.heading, rule, *rows])


def markdown(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Renders a report as Markdown, with measured rows in bold and links to the figures.

    Args:
      title: the top-level heading.
      lead: the introductory paragraph.
      sections: the sections in order.
    """
    blocks = [f"# {title}", lead]
    for section in sections:
        blocks.append(f"## {section.title}")
        for part in section.parts:
            if isinstance(part, Table):
                blocks.append(_markdown_table(part))
            elif isinstance(part, PageFigure):
                blocks.append(f"![{part.caption}]({part.path})\n\n*{part.caption}*")
            else:
                blocks.append(part)
    return "\n\n".join(blocks) + "\n"


_CSS = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 72rem; padding: 2.5rem 1.5rem 5rem; background: #fff; color: #1c1c20;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.3rem; margin: 3.2rem 0 .8rem; padding-top: .9rem; border-top: 1px solid #d9d9de; }
p { max-width: 46rem; margin: .7rem 0; }
nav ul { list-style: none; padding: 0; margin: 1.5rem 0 0; columns: 18rem; }
a { color: #0062a3; text-decoration: none; } a:hover { text-decoration: underline; }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: #f3f3f5;
  padding: .1em .3em; border-radius: 3px; }
.table { overflow-x: auto; margin: 1.2rem 0; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; min-width: 60%; }
th, td { padding: .32rem .7rem; text-align: right; white-space: nowrap; }
th { font-weight: 600; border-bottom: 1.5px solid #55555c; vertical-align: bottom; }
td { border-bottom: 1px solid #ececf0; }
.text { text-align: left; }
tr.measured td { background: #fdf1e9; }
tr.measured td:first-child { box-shadow: inset 3px 0 #d55e00; font-weight: 600; }
figure { margin: 1.8rem 0; } figure img { width: 100%; height: auto; display: block; }
figcaption { color: #55555c; font-size: .88rem; margin-top: .6rem; max-width: 46rem; }
@media print { body { max-width: none; padding: 0; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""


def _inline(text: str) -> str:
    return re.sub("`(.+?)`", r"<code>\1</code>", html.escape(text))


def _html_table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str, mark: str = "") -> str:
        classes = [' class="text"' if i < table.text_columns else "" for i in range(len(cells))]
        inside = "".join(f"<{tag}{c}>{_inline(cell)}</{tag}>" for c, cell in zip(classes, cells, strict=True))
        return f"<tr{mark}>{inside}</tr>"

    rows = "\n".join(row(r.cells, "td", ' class="measured"' if r.measured else "") for r in table.rows)
    heading = row(table.heading, "th")
    return f'<div class="table"><table>\n<thead>{heading}</thead>\n<tbody>\n{rows}\n</tbody></table></div>'


def _html_picture(picture: PageFigure) -> str:
    source = f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"
    caption = _inline(picture.caption)
    return f'<figure><img src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Renders a report as a self-contained HTML page with highlighted measured rows.

    Args:
      title: the top-level heading.
      lead: the introductory paragraph.
      sections: the sections in order.
    """
    contents = "\n".join(f'<li><a href="#s{i}">{_inline(s.title)}</a></li>' for i, s in enumerate(sections))
    blocks = []
    for i, section in enumerate(sections):
        blocks.append(f'<h2 id="s{i}">{_inline(section.title)}</h2>')
        for part in section.parts:
            if isinstance(part, Table):
                blocks.append(_html_table(part))
            elif isinstance(part, PageFigure):
                blocks.append(_html_picture(part))
            else:
                blocks.append(f"<p>{_inline(part)}</p>")
    body = "\n".join(blocks)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{_CSS}</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
<p>{_inline(lead)}</p>
<nav><ul>
{contents}
</ul></nav>
{body}
</body>
</html>
"""
