"""Evaluation results as tables, with the published scores next to the measured ones, and as files."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from a2f_jax.data.sources import dataset_name, is_folder_path
from a2f_jax.evaluation.paper import PUBLISHED
from a2f_jax.files import as_path, replacing

# Metric -> its heading, the decimals of measured and of published values.
_METRICS = {"psnr": ("PSNR/dB", 3, 2), "ssim": ("SSIM", 4, 4), "lpips": ("LPIPS", 4, 4)}

RESULT_FILES = ("results.json", "results.md")
"""What `write_results` writes."""

_TEXT_COLUMNS = ("dataset", "LR", "model", "weights")

# Replacements of characters that an output stream may not be able to encode.
_ASCII = {"×": "x", "Δ": "diff"}


def _cells(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    several = len(results) > 1  # then the weights tell the rows apart
    table = [["dataset", "LR", "model", "weights", "images"]]
    for name, _, _ in _METRICS.values():
        table[0] += [name, "paper", "Δ"]
    for dataset in dict.fromkeys(name for result in results for name in result["datasets"]):
        for result in results:
            if dataset not in result["datasets"]:
                continue
            ours = result["datasets"][dataset]
            published = PUBLISHED.get((result["model"], result["scale"]), {})
            theirs = {} if is_folder_path(dataset) else published.get(dataset_name(dataset), {})
            lr = ""
            if "jpeg" in result:
                lr, theirs = f"JPEG {result['jpeg']}", {}  # papers report scores of LR that is not compressed
            weights = (result["weights"] or "") if several else ""
            row = [dataset, lr, f"{result['model']} ×{result['scale']}", weights, str(ours["n"])]
            for metric, (_, our_decimals, their_decimals) in _METRICS.items():
                row.append(f"{ours[metric]:.{our_decimals}f}" if metric in ours else "")
                if metric in ours and metric in theirs:
                    row.append(f"{theirs[metric]:.{their_decimals}f}")
                    row.append(f"{ours[metric] - theirs[metric]:+z.{their_decimals}f}")
                else:
                    row += ["", ""]
            table.append(row)
    filled = [column for column in zip(*table, strict=True) if any(column[1:])]
    return [list(row) for row in zip(*filled, strict=True)]


def flat_rows(results: Sequence[dict[str, Any]], *, per_image: bool = False) -> list[dict[str, Any]]:
    """Returns results as one flat dictionary per dataset and model, or per image, for example for a data frame.

    Args:
      results: return values of `evaluate_models`.
      per_image: whether there is a row for every image, or one with the means of every dataset.

    Returns:
      Rows with `dataset`, `model`, `scale`, `weights`, `jpeg`, the quality of LR images that were compressed, `images`,
      their number, or `image`, its name, and the metrics.
    """
    rows = []
    for result in results:
        about = {key: result[key] for key in ("model", "scale", "weights", "jpeg") if key in result}
        for dataset, scores in result["datasets"].items():
            if per_image:
                rows += [{"dataset": dataset, **about, "image": k, **v} for k, v in scores["images"].items()]
            else:
                means = {metric: scores[metric] for metric in _METRICS if metric in scores}
                rows.append({"dataset": dataset, **about, "images": scores["n"], **means})
    return rows


def _encodable(text: str, encoding: str) -> str:
    for character, replacement in _ASCII.items():
        try:
            character.encode(encoding)
        except UnicodeEncodeError:
            text = text.replace(character, replacement)
    return text


def terminal_table(results: Sequence[dict[str, Any]], encoding: str = "utf-8") -> str:
    """Formats results as a plain-text table.

    Args:
      results: return values of `evaluate_models`.
      encoding: the encoding of the stream that shows the table. If it lacks × or Δ, they become x and diff.

    Returns:
      Aligned columns: one row per dataset and model, grouped by dataset. Where the paper reports a score, it follows
      the measured one, together with the difference measured − paper. With several results, the rows also show their
      weights. Columns without any value are omitted.
    """
    cells = [[_encodable(cell, encoding) for cell in row] for row in _cells(results)]
    columns = list(zip(*cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    align = [str.ljust if column[0] in _TEXT_COLUMNS else str.rjust for column in columns]
    lines = [
        "  ".join(pad(text, width) for pad, text, width in zip(align, row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def markdown_table(results: Sequence[dict[str, Any]]) -> str:
    """Formats results as a Markdown table with the rows and columns of `terminal_table`."""
    heading, *rows = _cells(results)
    rule = ["---" if column in _TEXT_COLUMNS else "---:" for column in heading]
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [heading, rule, *escaped])


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(value: Any) -> str:
    """Serializes a value as indented JSON. Infinite numbers, which JSON does not support, become null."""
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_files(files: Mapping[str, str | bytes], folder: str | os.PathLike[str]) -> None:
    """Writes files atomically: each has either its old or its new content, even if the process is interrupted.

    Args:
      files: file contents by path, relative to `folder`.
      folder: the destination, which is created if it does not exist.

    Raises:
      UserError: a file cannot be written.
    """
    for name, content in files.items():
        with replacing(as_path(folder) / name) as file:
            # File names need not be valid text.
            file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


def write_results(results: Sequence[dict[str, Any]], folder: str | os.PathLike[str]) -> None:
    """Writes results to `results.json`, a list, and to `results.md`, a table.

    Args:
      results: return values of `evaluate_models`.
      folder: the destination, which is created if it does not exist.

    Raises:
      UserError: a file cannot be written.
    """
    models = "\n".join(
        f"- {result['model']} ×{result['scale']}" + (f", weights: {result['weights']}" if result["weights"] else "")
        for result in results
    )
    heading = _cells(results)[0]
    notes = ["PSNR and SSIM are computed on the Y channel after cropping `scale` pixels from each side."]
    if "LPIPS" in heading:
        notes.append("LPIPS uses the whole RGB image.")
    if "paper" in heading:
        notes.append('The columns "paper" show the published scores; Δ is measured − paper.')
    if "LR" in heading:
        notes.append('LR images of "JPEG Q" were saved as JPEG with quality Q and 4:2:0 chroma.')
    report = f"# Evaluation\n\n{models}\n\n{markdown_table(results)}\n\n{' '.join(notes)}\n"
    write_files(dict(zip(RESULT_FILES, (json_text(results), report), strict=True)), folder)
