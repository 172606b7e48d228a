"""Scores of the measured weights, and the formatting of numbers in tables."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import tqdm

from a2f_jax.data import open_pairs
from a2f_jax.errors import UserError
from a2f_jax.evaluation.benchmark import evaluate_models
from a2f_jax.evaluation.lpips import installed as lpips_installed
from a2f_jax.evaluation.paper import SETS, Row
from a2f_jax.model import Model, Network
from a2f_jax.models.a2f import VARIANTS, build
from a2f_jax.models.registry import PEERS
from a2f_jax.report import measure

MISSING = "–"

Numbers = list[dict[str, Any]]


class Measured(NamedTuple):
    """A model and its benchmark scores.

    Attributes:
      label: the name of the weights in tables.
      model: the model.
      datasets: the `"datasets"` of the result of `evaluate`; empty if no benchmark set was measured.
    """

    label: str
    model: Model
    datasets: dict[str, Any]

    @property
    def row(self) -> Row:
        """The model as a row of the paper's tables, with multi-adds as the authors count them."""
        size = measure.sizes(self.model.network)
        means = {
            name: {metric: scores[metric] for metric in ("psnr", "ssim", "lpips") if metric in scores}
            for name, scores in self.datasets.items()
        }
        variant = self.model.variant
        title = PEERS[variant].title if variant in PEERS else variant.upper()
        return Row(title, size["parameters"] / 1e3, size["with_elementwise"] / 1e9, means)


def measure_weights(
    weights: Mapping[str, Model],
    datasets: Sequence[str],
    data_dir: str | os.PathLike[str] | None,
    progress: bool = True,
) -> list[Measured]:
    """Measures each model on the available benchmark sets.

    Args:
      weights: the models by label.
      datasets: the names of the benchmark sets. Sets that `data_dir` lacks at the scale of a model are skipped, with a
        message on standard error.
      data_dir: the folder that contains the benchmark sets. Without it, nothing is measured.
      progress: whether to show a progress bar for each model.

    Returns:
      The models in the same order.
    """
    measured = []
    for label, model in weights.items():
        found = []
        for name in datasets if data_dir else ():
            try:
                open_pairs(name, scale=model.scale, data_dir=data_dir)
                found.append(name)
            except UserError as error:
                tqdm.tqdm.write(f"skipped: {error}", file=sys.stderr)
        (result,) = evaluate_models(
            [(model, label)], found, data_dir=data_dir, lpips=lpips_installed(), progress=progress
        )
        measured.append(Measured(label, model, result["datasets"]))
    return measured


def networks_named(titles: Iterable[str], scale: int) -> dict[str, Network]:
    """Returns the networks that are printed under the given titles, in their order, as far as they exist here.

    Args:
      titles: names as the slides print them, such as `"CARN-M"`.
      scale: the upscaling factor.

    Returns:
      The networks by title.
    """
    found: dict[str, Network] = {}
    for title in titles:
        if title.lower() in VARIANTS:
            found[title] = build(title.lower(), scale)
        for peer in PEERS.values():
            if peer.title == title and scale in peer.scales:
                found[title] = peer.make(scale)
    return found


def score_cells(scores: Mapping[str, Mapping[str, float]], *metrics: str) -> list[str]:
    """Formats one cell per benchmark set, such as `37.91/0.9602`."""
    cells = []
    for name in SETS:
        values = scores.get(name, {})
        texts = [f"{values[m]:.2f}" if m == "psnr" else f"{values[m]:.4f}" for m in metrics if m in values]
        cells.append("/".join(texts) or MISSING)
    return cells


def thousands(parameters: float, decimals: int = 0) -> str:
    """Formats a number of parameters, given in thousands."""
    return f"{parameters:.{decimals}f}K"


def billions(multiply_adds: float | None, decimals: int = 1) -> str:
    """Formats a number of multi-adds, given in units of 1e9."""
    return MISSING if multiply_adds is None else f"{multiply_adds:.{decimals}f}G"


def measured_as(measured: Measured) -> str:
    """Formats the source of a measured row."""
    return f"measured: `{measured.label}`"
