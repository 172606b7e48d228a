import base64
import re
from html.parser import HTMLParser

from a2f_jax.report.page import Cells, PageFigure, Section, Table, markdown, page

SECTIONS = [
    Section(
        "Sizes & more",
        [
            "Run `a2f report` < 5 minutes.",
            Table(["Model", "Source", "K"], [Cells(["A", "slides", "1"]), Cells(["B", "", "2"], measured=True)], 2),
        ],
    ),
    Section("Figures", [PageFigure("curve", "A curve.", b"\x89PNG...")]),
]


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.cells, self.links, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)


def test_markdown_has_measured_rows_in_bold_and_links_to_the_figures():
    text = markdown("Title", "Lead.", SECTIONS)
    assert text.startswith("# Title\n\nLead.\n\n## Sizes & more\n\nRun `a2f report` < 5 minutes.\n\n")
    assert "| Model | Source | K |\n| --- | --- | ---: |\n| A | slides | 1 |\n| **B** |  | **2** |\n" in text
    assert "![A curve.](figures/curve.png)" in text
    named = [Section("Names", [Table(["Model"], [Cells(["a|b.safetensors"], measured=True)], 1)])]
    assert r"| **a\|b.safetensors** |" in markdown("Title", "Lead.", named)


def test_html_is_well_formed_and_self_contained():
    text = page("Title", "Lead.", SECTIONS)
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    assert reader.cells == ["Model", "Source", "K", "A", "slides", "1", "B", "2"]
    image = f"data:image/png;base64,{base64.b64encode(SECTIONS[1].parts[0].png).decode()}"
    assert reader.links == ["#s0", "#s1", image]
    assert "url(" not in text


def test_html_marks_measured_rows_and_code_and_escapes_other_text():
    text = page("Title", "Lead.", SECTIONS)
    assert [re.search(r"<td[^>]*>(.)", row)[1] for row in re.findall('<tr class="measured">.*', text)] == ["B"]
    assert "<p>Run <code>a2f report</code> &lt; 5 minutes.</p>" in text
    assert "Sizes &amp; more</h2>" in text
