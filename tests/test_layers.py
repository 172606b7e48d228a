"""The layers of the package: a module imports only from layers below its own, and no two files share a name."""

import ast
import collections
import graphlib
import pathlib
import subprocess
import sys

import pytest

import a2f_jax

ROOT = pathlib.Path(a2f_jax.__file__).parent

# From top to bottom. `configs` is the top-level folder, which is installed as part of the package.
LAYERS = [
    "__main__",
    "cli",
    "configs",
    "demo",
    "report",
    "training",
    "evaluation",
    "exporting",
    "model",
    "upscaling",
    "weights",
    "models",
    "data",
    "images",
    "hardware",
    "staging",
    "compilation_cache",
    "files",
    "buckets",
    "progress",
    "machine",
    "signals",
    "catalog",
    "errors",
]


def imports(file):
    """Yields the layers that a file imports from, including imports inside functions and for type checkers."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("a2f_jax"):
            whole = node.module.split(".")
            yield from ([whole[1]] if len(whole) > 1 else [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("a2f_jax."))


def layer_of(file):
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


FILES = sorted(ROOT.rglob("*.py"))
MODULES = {".".join(("a2f_jax", *f.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__") for f in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_no_import_points_up(file):
    if file.parent == ROOT and file.name == "__init__.py":
        return  # imports the public API lazily
    layer = layer_of(file)
    assert layer in LAYERS, f"{layer} is not in the list of layers"
    above = [name for name in imports(file) if name in LAYERS and LAYERS.index(name) < LAYERS.index(layer)]
    assert not above, f"{file} imports from layers above its own: {above}"


def test_the_layers_are_those_that_contributors_read_about():
    text = (pathlib.Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    chain = text.split("## Layers\n\n```\n")[1].split("```")[0]
    assert ["__main__", *(layer.strip() for layer in chain.split(">"))] == LAYERS


def test_no_two_files_share_a_name():
    names = collections.Counter(file.stem for file in FILES if file.stem != "__init__")
    assert not [name for name, count in names.items() if count > 1]


def test_no_two_classes_share_a_name():
    names = collections.Counter(
        node.name for file in FILES for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ClassDef)
    )
    assert not [name for name, count in names.items() if count > 1]


def test_the_public_api_exists_and_is_documented():
    for name in a2f_jax.__all__:
        assert getattr(a2f_jax, name).__doc__, name
        assert name in dir(a2f_jax)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        a2f_jax.nothing  # noqa: B018


def test_the_catalog_and_the_command_line_do_not_import_jax():
    program = "import sys, a2f_jax.catalog, a2f_jax.cli; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_no_modules_import_each_other():
    graph = {}
    for file in FILES:
        module = ".".join(("a2f_jax", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        graph[module] = set()
        for node in ast.parse(file.read_text()).body:  # those inside functions run later
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("a2f_jax."):
                inside = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[module] |= {name for name in inside if name in MODULES} or {node.module}
    # A package's own __init__ imports its modules, which may name the package.
    graphlib.TopologicalSorter({m: {d for d in deps if d != m} for m, deps in graph.items()}).prepare()
