"""The command `a2f report`: every table and figure of the paper in one folder."""

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
from a2f_jax.model import load_labelled
from a2f_jax.report import measure
from a2f_jax.report.page import PageFigure, Section, markdown, page


def report(
    output: str | os.PathLike[str],
    *,
    weights: Sequence[str | os.PathLike[str]] = (),
    data_dir: str | os.PathLike[str] | None = None,
    datasets: Sequence[str] = SETS,
    comparisons: Mapping[str | os.PathLike[str], tuple[int, ...]] | None = None,
) -> pathlib.Path:
    """Measures what can be measured and writes it beside what the paper's slides say.

    Args:
      output: the folder for `report.md`, `report.html` (which needs no other file), `report.json` and `figures/`.
      weights: what to measure, see `a2f_jax.load`.
      data_dir: prepared datasets, or the folder with the benchmark sets; without it nothing is measured on them.
      datasets: the benchmark sets to measure on; of these, what there is at a model's scale is taken.
      comparisons: images for the visual comparison, each with its crop: left, top, width and height in pixels. By
        default "barbara" and a façade from the benchmark sets, or photographs of scikit-image.

    Returns:
      The HTML file.

    Raises:
      UserError: matplotlib is not installed, a dataset or weights file is wrong, or the folder cannot be written.
    """
    try:
        import matplotlib  # noqa: F401 - an extra
    except ImportError as error:
        raise UserError("the report needs an extra package: pip install 'a2f_jax[report]'") from error
    from a2f_jax.report import sections

    if unknown := [name for name in datasets if name not in SETS]:
        raise UserError(f"the report has no column for {unknown[0]}: choose from {', '.join(SETS)}")
    if data_dir is not None and not pathlib.Path(data_dir).is_dir():
        raise UserError(f"there is no folder {data_dir}: name the one with the benchmark sets")
    models = load_labelled(weights)
    examples = {}
    for scale in sorted({model.scale for model in models.values()}):
        if comparisons:
            examples[scale] = [
                sections.example_from_file(Source(pathlib.Path(path).stem, pathlib.Path(path)), crop, scale)
                for path, crop in comparisons.items()
            ]
        else:
            examples[scale] = sections.default_examples(scale, data_dir)

    try:  # now, not after minutes of measuring
        pathlib.Path(output).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the report to {output}: {error.strerror or error}") from error

    measured = sections.measure_weights(models, datasets, data_dir)
    made: dict[str, tuple[Section, Any]] = {}
    steps: dict[str, Callable[[], tuple[Section, Any]]] = {
        "model_sizes": sections.model_sizes,
        "ablation": lambda: sections.ablation(measured),
        "head_kernels": lambda: sections.head_kernels(measured),
        "component_weights": lambda: sections.component_weights(measured),
        "comparison": lambda: sections.comparison(measured),
        "lpips": lambda: sections.lpips(measured),
        "running_time": lambda: sections.running_time(measured),
        "visual_comparison": lambda: sections.visual_comparison(measured, examples),
    }
    for name, make in steps.items():
        made[name] = make()
        # After each section, so that what was measured is there even if the rest fails.
        _write(output, {m.label: m.datasets for m in measured}, made)
    return pathlib.Path(output) / "report.html"


def _write(
    output: str | os.PathLike[str], benchmarks: Mapping[str, Any], made: Mapping[str, tuple[Section, Any]]
) -> None:
    device = measure.device_name()
    about = {"a2f_jax": a2f_jax.__version__, "jax": jax.__version__, "device": device}
    title = "A2F: the paper's tables and figures, and ours"
    lead = (
        "Lightweight super-resolution with attentive auxiliary features (Wang et al., ACCV 2020), computed by "
        f"a2f_jax {a2f_jax.__version__} with JAX {jax.__version__} on {device}. What is cited comes from the authors' "
        "slides; rows that were measured here are marked."
    )
    written = [section for section, _ in made.values()]
    pictures = [part for section in written for part in section.parts if isinstance(part, PageFigure)]
    numbers = {"about": about, "benchmarks": benchmarks, **{name: values for name, (_, values) in made.items()}}
    write_files(
        {
            **{picture.path: picture.png for picture in pictures},
            "report.md": markdown(title, lead, written),
            "report.html": page(title, lead, written),
            "report.json": json_text(numbers),
        },
        output,
    )
