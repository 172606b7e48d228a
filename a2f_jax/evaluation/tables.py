"""Results as tables, with the paper's figures beside ours, and as files."""

import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from a2f_jax.evaluation.paper import PUBLISHED
from a2f_jax.files import replacing

# Metric -> its heading, our decimals, the paper's decimals.
_METRICS = {"psnr": ("PSNR/dB", 3, 2), "ssim": ("SSIM", 4, 4), "lpips": ("LPIPS", 4, 4)}


def _cells(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The heading and a row for each dataset and model, without the columns that nothing would fill."""
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
    """Lays results out for the terminal.

    Args:
      results: one or several of what `evaluate` returns; models measured on the same set stand together.

    Returns:
      Lines of aligned columns. Beside our figure stand the paper's, where it has one, and ours − paper's.
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
    """The table of `terminal_table` in Markdown."""
    heading, *rows = _cells(results)
    rule = ["---", "---"] + ["---:"] * (len(heading) - 2)
    return "\n".join(f"| {' | '.join(row)} |" for row in [heading, rule, *rows])


def _finite(value: Any) -> Any:
    """The same value with null for infinite PSNR, which JSON cannot write."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(value: Any) -> str:
    """Writes a result as JSON, infinite PSNR as null."""
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_files(files: Mapping[str, str | bytes], folder: str | os.PathLike[str]) -> None:
    """Writes files, each replaced at once, never left half-written.

    Args:
      files: contents by name; a name may have folders.
      folder: made where it does not exist.

    Raises:
      UserError: a file cannot be written.
    """
    for name, content in files.items():
        with replacing(pathlib.Path(folder) / name) as file:
            file.write(content.encode() if isinstance(content, str) else content)


def write_results(result: dict[str, Any], folder: str | os.PathLike[str]) -> None:
    """Writes `results.json` and `results.md`.

    Args:
      result: what `evaluate` returns.
      folder: made where it does not exist.

    Raises:
      UserError: a file cannot be written.
    """
    report = f"""# {result["model"]} ×{result["scale"]}

Weights: {result["weights"] or "none"}

{markdown_table([result])}

PSNR and SSIM on Y of YCbCr, {result["scale"]} pixels shaved off each side; LPIPS on the whole RGB image.
"paper" is what its authors published, Δ is ours − paper's.
"""
    write_files({"results.json": json_text(result), "results.md": report}, folder)
