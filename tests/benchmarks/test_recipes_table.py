"""The table of recipes in docs/weights.md."""

import importlib
import json
import pathlib

ROOT = pathlib.Path(__file__).parents[2]


def test_results_in_the_repository_give_the_table_of_the_page(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    recipes = importlib.import_module("recipes")
    results = json.loads((ROOT / "docs/results/recipes.json").read_text())
    assert results.keys() <= recipes.RECIPES.keys()
    assert f"<!-- recipes -->\n{recipes.table(results)}\n<!-- /recipes -->" in (ROOT / "docs/weights.md").read_text()
