"""The documentation: its commands, links, and lists agree with the package."""

import json
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib

import jax
import numpy as np
import pytest
from PIL import Image

import a2f_jax
from a2f_jax import cli
from a2f_jax.cli import average, compare, convert, data, evaluate, export, info, models, report, serve, train, upscale
from a2f_jax.models.a2f import VARIANTS, build
from a2f_jax.models.counts import count

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def documented_commands():
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                for command in re.findall(r"(?:^|\bdo |\| )\s*(a2f .*?)(?:;|$)", line):
                    yield pytest.param(command, id=f"{page.name}: {command}")


@pytest.mark.parametrize("command", list(documented_commands()))
def test_documented_commands_are_accepted_by_the_command_line(command, monkeypatch):
    for module in (average, compare, convert, data, evaluate, export, info, models, report, serve, upscale):
        monkeypatch.setattr(module, "run", lambda *_: None)

    def load(args, overrides):
        train.load_config(args.config, overrides)

    monkeypatch.setattr(train, "run", load)
    words = shlex.split(command, comments=True)[1:]
    # Only the shell knows what $scale and > stand for.
    words = ["4" if word == "$scale" else word for word in words if word != ">"]
    assert cli.main(words) == 0


def test_the_examples_of_the_page_on_exporting_give_what_the_model_gives(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8))
    image.save("photo.png")
    model = a2f_jax.load("a2f-sd-x4")
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs/export.md").read_text(), re.DOTALL)
    for example, suffix in zip(examples, ("onnx", "stablehlo"), strict=True):
        a2f_jax.export(model, f"sd_x4.{suffix}")
        subprocess.run([sys.executable, "-c", example], check=True)
        difference = np.asarray(Image.open("photo-x4.png"), int) - np.asarray(model.upscale(image), int)
        assert np.abs(difference).max() <= 1  # where a value is nearly half way between two
        assert (difference != 0).mean() < 0.01


def test_the_example_of_choosing_weights_prints_what_the_page_shows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (device, *_) = jax.local_devices()
    monkeypatch.setattr(jax, "local_devices", lambda: [device])  # each would compile the programs for itself
    photos = tmp_path / "photos"
    photos.mkdir()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8))
    image.save(photos / "drawing.png")
    for name, quality in (("from-camera.jpg", 95), ("from-web.jpg", 60)):
        image.save(photos / name, quality=quality)
    section = (ROOT / "docs/upscaling.md").read_text().split("## Weights\n")[1]
    command, output = re.match(r".*?```sh\na2f (.*?)\n```\n\n```\n(.*?)```", section, re.DOTALL).groups()
    assert cli.main([*shlex.split(command), "--format", "PNG"]) == 0
    assert {*output.splitlines()} <= {*capsys.readouterr().err.splitlines()}
    for name, weights in (("from-camera", "a2f-sd-x4"), ("from-web", "a2f-sd-x4-photo")):
        want = a2f_jax.load(weights).upscale(np.asarray(Image.open(photos / f"{name}.jpg")))
        np.testing.assert_array_equal(np.asarray(Image.open(f"upscaled/{name}.png")), want)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert not [target for target in targets if not (page.parent / target).exists()]


def test_the_api_page_lists_exactly_the_public_names():
    page = (ROOT / "docs/reference/api.md").read_text()
    assert sorted(re.findall(r"^::: a2f_jax\.(\w+)$", page, re.MULTILINE)) == sorted(a2f_jax.__all__)


def test_the_citation_names_the_version():
    assert f"\nversion: {a2f_jax.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_every_place_names_the_same_versions_of_python_and_jax():
    setup = (ROOT / "setup.py").read_text()
    first, end = map(int, re.search(r'python_requires=">=3\.(\d+),<3\.(\d+)"', setup).groups())
    versions = [f"3.{minor}" for minor in range(first, end)]
    jax_first, jax_end = map(int, re.search(r'JAX = ">=0\.(\d+),<0\.(\d+)"', setup).groups())
    assert re.search(r"^PYTHONS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split() == versions
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert tools["mypy"]["python_version"] == versions[0]
    assert tools["ruff"]["target-version"] == versions[0].replace("3.", "py3")
    pythons = f"Python {', '.join(versions[:-1])}, or {versions[-1]}"
    for page in ("README.md", "CONTRIBUTING.md", "docs/index.md"):
        assert pythons in (ROOT / page).read_text(), page
    for page in ("README.md", "docs/index.md"):
        text = " ".join((ROOT / page).read_text().split())  # lines may break anywhere
        assert f"JAX 0.{jax_first} to 0.{jax_end - 1}" in text, page
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    assert f"PYTHON_OLDEST=/path/to/python{versions[0]} PYTHON_NEWEST=/path/to/python{versions[-1]}" in contributing


def test_the_tables_of_speed_and_variants_are_those_of_the_results():
    page = (ROOT / "docs/upscaling.md").read_text()
    rows = json.loads((ROOT / "docs/results/inference.json").read_text())
    forms = {"upscale": "`Model.upscale`", "jit": "`jax.jit(model)`", "pytorch": "PyTorch"}
    for row in rows:
        assert f"| {row['variant']} | {forms[row['form']]} | {row['ms']:.0f} | {row['fastest_ms']:.0f} |" in page
    times = {row["variant"]: row["ms"] for row in rows if row["form"] == "upscale"}
    for variant, size in VARIANTS.items():
        counts = count(build(variant, 4))
        numbers = f"{size.features} | {size.blocks} | {counts.parameters:,} | {counts.multiply_adds / 1e9:.1f} G"
        assert re.search(rf"\| `{variant}`[^|]*\| {re.escape(numbers)} \| {times[variant]:.0f} ms \|", page)
    page = (ROOT / "docs/training.md").read_text()
    for row in json.loads((ROOT / "docs/results/train.json").read_text())["rows"]:
        torch, ratio = f"{row['torch_ms']:.0f}", f"{row['ratio_torch']:.2f}"
        numbers = f"{row['jax_ms']:.0f} | {row['images_per_second']:.0f} | {torch} | {ratio}"
        assert f"| {row['variant']} | {numbers} |" in page
