"""The table of recipes in docs/training-runs.md."""

import importlib
import json
import pathlib

ROOT = pathlib.Path(__file__).parents[2]


def test_results_in_the_repository_give_the_table_of_the_page(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    recipes = importlib.import_module("recipes")
    results = json.loads((ROOT / "docs/results/recipes.json").read_text())
    assert results.keys() <= recipes.RECIPES.keys()
    page = (ROOT / "docs/training-runs.md").read_text()
    assert f"<!-- recipes -->\n{recipes.table(results)}\n<!-- /recipes -->" in page
