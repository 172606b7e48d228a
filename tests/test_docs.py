"""The documentation: its commands, links, and lists agree with the package."""

import pathlib
import re
import shlex

import pytest

import a2f_jax
from a2f_jax import cli
from a2f_jax.cli import compare, convert, data, evaluate, info, models, report, train, upscale

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def documented_commands():
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                for command in re.findall(r"(?:^|\bdo |\| )\s*(a2f .*?)(?:;|$)", line):
                    yield pytest.param(command, id=f"{page.name}: {command}")


@pytest.mark.parametrize("command", documented_commands())
def test_documented_commands_are_accepted_by_the_command_line(command, monkeypatch):
    for module in (compare, convert, data, evaluate, info, models, report, upscale):
        monkeypatch.setattr(module, "run", lambda *_: None)

    def load(args, overrides):
        train.load_config(args.config, overrides)

    monkeypatch.setattr(train, "run", load)
    words = shlex.split(command, comments=True)[1:]
    # Only the shell knows what $scale and > stand for.
    words = ["4" if word == "$scale" else word for word in words if word != ">"]
    assert cli.main(words) == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert not [target for target in targets if not (page.parent / target).exists()]


def test_the_api_page_lists_exactly_the_public_names():
    page = (ROOT / "docs/reference/api.md").read_text()
    assert sorted(re.findall(r"^::: a2f_jax\.(\w+)$", page, re.MULTILINE)) == sorted(a2f_jax.__all__)


def test_the_citation_names_the_version():
    assert f"\nversion: {a2f_jax.__version__}\n" in (ROOT / "CITATION.cff").read_text()
