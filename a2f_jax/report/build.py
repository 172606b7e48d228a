"""Builds the report: every table and figure of the paper in one folder."""

import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

import a2f_jax
from a2f_jax.data.sources import Source
from a2f_jax.errors import UserError
from a2f_jax.evaluation.paper import SETS
from a2f_jax.evaluation.tables import json_text, write_files
from a2f_jax.files import as_path, check_writable
from a2f_jax.model import load_labeled_of_any_scale
from a2f_jax.report import measure
from a2f_jax.report.page import PageFigure, Section, markdown, page
from a2f_jax.staging import local_copy

REPORT_FILES = ("report.md", "report.html", "report.json")
"""What `report` writes besides figures."""


def report(
    output: str | os.PathLike[str],
    *,
    weights: Sequence[str | os.PathLike[str]] = (),
    data_dir: str | os.PathLike[str] | None = None,
    datasets: Sequence[str] = SETS,
    comparisons: Sequence[tuple[str | os.PathLike[str], tuple[int, ...]]] = (),
    progress: bool = True,
) -> pathlib.Path:
    """Writes the tables and figures of the paper, and adds rows for the models that are measured here.

    Args:
      output: the folder for `report.md`, `report.html` (self-contained), `report.json` and `figures/`;
        existing ones are replaced.
      weights: the weights to measure: files, folders of training runs, or names that `a2f_jax.load` accepts.
      data_dir: a folder with prepared datasets or with the original benchmark sets. Without it, no benchmark scores are
        measured.
      datasets: the benchmark sets to measure. Sets that `data_dir` lacks at the scale of a model are skipped.
      comparisons: images for the visual comparison, each with the crop to enlarge: left, top, width and height in
        pixels (default: "barbara" and a façade from the benchmark sets, or photographs from scikit-image).
      progress: whether to show progress bars on standard error.

    Returns:
      The path of the HTML file.

    Raises:
      UserError: an optional package is not installed, a dataset or weights file is invalid, or the folder cannot be
        written.
    """
    try:
        import matplotlib  # noqa: F401 - an extra
    except ImportError as error:
        raise UserError("the report requires an optional package: pip install 'a2f_jax[report]'") from error
    from a2f_jax.report import sections

    if unknown := [name for name in datasets if name not in SETS]:
        raise UserError(f"{unknown[0]} is not a benchmark set of the report: choose from {', '.join(SETS)}")
    if comparisons and not weights:
        raise UserError("the visual comparison requires weights to compare", parameter="weights")
    if data_dir is not None:
        data_dir = as_path(data_dir)
        if not data_dir.is_dir():
            raise UserError(f"{data_dir} is not a folder: pass the folder that contains the benchmark sets")
    output = as_path(output)
    for folder in (output, output / "figures"):
        check_writable(folder)
    models = load_labeled_of_any_scale(weights)
    examples: dict[int, list[Any]] = {}
    for scale in sorted({model.scale for model in models.values()}):
        if comparisons:
            examples[scale] = []
            for path, crop in ((as_path(path), crop) for path, crop in comparisons):
                with local_copy(path) as file:
                    examples[scale].append(sections.example_from_file(Source(path.stem, file), crop, scale))
        else:
            examples[scale] = sections.default_examples(scale, data_dir)

    measured = sections.measure_weights(models, datasets, data_dir, progress)
    made: dict[str, tuple[Section, Any]] = {}
    steps: dict[str, Callable[[], tuple[Section, Any]]] = {
        "model_sizes": lambda: sections.model_sizes(progress),
        "compared_sizes": lambda: sections.compared_sizes(progress),
        "ablation": lambda: sections.ablation(measured),
        "head_kernels": lambda: sections.head_kernels(measured),
        "component_weights": lambda: sections.component_weights(measured, progress),
        "comparison": lambda: sections.comparison(measured),
        "lpips": lambda: sections.lpips(measured),
        "running_time": lambda: sections.running_time(measured, progress),
        "visual_comparison": lambda: sections.visual_comparison(measured, examples),
    }
    for name, make in steps.items():
        made[name] = make()
        # After each section, so that finished measurements are kept if a later section fails.
        _write(output, {m.label: m.datasets for m in measured}, made, complete=len(made) == len(steps))
    return output / "report.html"


def is_incomplete(folder: pathlib.Path) -> bool:
    """Returns whether a folder contains a report that was interrupted, or is being written."""
    try:
        return json.loads((folder / "report.json").read_text())["about"]["complete"] is False
    except (OSError, ValueError, KeyError, TypeError):  # none, or of an earlier version
        return False


def _write(
    output: pathlib.Path, benchmarks: Mapping[str, Any], made: Mapping[str, tuple[Section, Any]], complete: bool
) -> None:
    device = measure.device_name()
    about = {"a2f_jax": a2f_jax.__version__, "jax": jax.__version__, "device": device, "complete": complete}
    title = "A2F: tables and figures of the paper, and measured results"
    lead = (
        "Lightweight super-resolution with attentive auxiliary features (Wang et al., ACCV 2020), generated by "
        f"a2f_jax {a2f_jax.__version__} with JAX {jax.__version__} on {device}. Published results come from the "
        "authors' slides. Rows that were measured or computed for this report are highlighted."
    )
    if not complete:
        lead += " This report is incomplete: it was interrupted, or is being written."
    written = [section for section, _ in made.values()]
    pictures = [part for section in written for part in section.parts if isinstance(part, PageFigure)]
    numbers = {"about": about, "benchmarks": benchmarks, **{name: values for name, (_, values) in made.items()}}
    texts = markdown(title, lead, written), page(title, lead, written), json_text(numbers)
    write_files(
        {
            **{picture.path: picture.png for picture in pictures},
            **dict(zip(REPORT_FILES, texts, strict=True)),
        },
        output,
    )
