"""Evaluation results as tables, with the published figures beside the measured ones, and as files."""

import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from a2f_jax.evaluation.paper import PUBLISHED
from a2f_jax.files import replacing

# Metric -> its heading, the decimals of measured and of published values.
_METRICS = {"psnr": ("PSNR/dB", 3, 2), "ssim": ("SSIM", 4, 4), "lpips": ("LPIPS", 4, 4)}


def _cells(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    table = [["dataset", "model", "images"]]
    for name, _, _ in _METRICS.values():
        table[0] += [name, "paper", "Δ"]
    for dataset in dict.fromkeys(name for result in results for name in result["datasets"]):
        for result in results:
            if dataset not in result["datasets"]:
                continue
            ours = result["datasets"][dataset]
            theirs = PUBLISHED.get((result["model"], result["scale"]), {}).get(dataset, {})
            row = [dataset, f"{result['model']} ×{result['scale']}", str(ours["n"])]
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


def terminal_table(results: Sequence[dict[str, Any]]) -> str:
    """Formats results as a plain-text table.

    Args:
      results: return values of `evaluate`.

    Returns:
      Aligned columns: one row per dataset and model, grouped by dataset. Where the paper reports a figure, it follows
      the measured one, together with the difference measured − paper. Columns without any value are omitted.
    """
    cells = _cells(results)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    align = [str.ljust, str.ljust] + [str.rjust] * (len(widths) - 2)
    lines = [
        "  ".join(pad(text, width) for pad, text, width in zip(align, row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def markdown_table(results: Sequence[dict[str, Any]]) -> str:
    """Formats results as a Markdown table with the rows and columns of `terminal_table`."""
    heading, *rows = _cells(results)
    rule = ["---", "---"] + ["---:"] * (len(heading) - 2)
    return "\n".join(f"| {' | '.join(row)} |" for row in [heading, rule, *rows])


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
        with replacing(pathlib.Path(folder) / name) as file:
            file.write(content.encode() if isinstance(content, str) else content)


def write_results(result: dict[str, Any], folder: str | os.PathLike[str]) -> None:
    """Writes a result to `results.json` and `results.md`.

    Args:
      result: the return value of `evaluate`.
      folder: the destination, which is created if it does not exist.

    Raises:
      UserError: a file cannot be written.
    """
    report = f"""# {result["model"]} ×{result["scale"]}

Weights: {result["weights"] or "none"}

{markdown_table([result])}

PSNR and SSIM are computed on the Y channel without the outer {result["scale"]} pixels, LPIPS on the whole RGB image.
The columns "paper" show the published figures; Δ is measured − paper.
"""
    write_files({"results.json": json_text(result), "results.md": report}, folder)
