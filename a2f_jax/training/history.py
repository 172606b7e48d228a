"""The history of a run, which `metrics.jsonl` in its work folder holds."""

import json
import pathlib
from typing import Any

FILE = "metrics.jsonl"

RESUMED = "resumed"
"""The kind of a line that says at which step a run resumed, if there are lines from beyond that step."""

KINDS = ("train", "validation")
"""The kinds of lines whose values are metrics."""


def read_history(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Reads the metrics of a run, also of a run that was interrupted and resumed.

    What was logged after the checkpoint that the run resumed from is left out, as if there had been no interruption.

    Args:
      workdir: the work folder, local or in a bucket.

    Returns:
      One dictionary for each step at which metrics were logged, in ascending order: `"step"`, and the metrics by name,
      such as `"train/loss"` and `"validation/psnr"`. It is empty if there is no file.
    """
    try:
        text = (workdir / FILE).read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return []
    rows: dict[int, dict[str, Any]] = {}
    for line in text.splitlines():
        try:
            match json.loads(line):
                case {"step": int(step), "kind": str(kind), **metrics}:
                    pass
                case _:
                    continue
        except ValueError:  # cut off when a process was killed
            continue
        if kind == RESUMED:
            rows = {earlier: row for earlier, row in rows.items() if earlier <= step}
        elif kind in KINDS:
            rows.setdefault(step, {"step": step}).update({f"{kind}/{name}": v for name, v in metrics.items()})
    return [rows[step] for step in sorted(rows)]
