"""Reads the weights of a training run from its checkpoints.

A work folder contains `checkpoints/<step>/`. Each checkpoint has the items `params`, `ema` (if the run averages its
weights), `optimizer` and `about` (JSON: step, config and package version). A validated one also has `scores.json`.
"""

import json
import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp

from a2f_jax.errors import UserError
from a2f_jax.models.a2f import Params

FOLDER = "checkpoints"
SCORES = "scores.json"
"""Written after the checkpoint, because validation follows the saving."""


def read_about(checkpoint: pathlib.Path) -> dict:
    """Returns what is known of a checkpoint: `step`, `version`, `config` and, once validated, `psnr` and `ssim`."""
    about = json.loads((checkpoint / "about" / "metadata").read_text())
    try:
        return {**about, **json.loads((checkpoint / SCORES).read_text())}
    except (FileNotFoundError, ValueError):  # not validated, or damaged
        return about


def read_checkpoint(path: pathlib.Path) -> tuple[Params, dict[str, str]]:
    """Reads the weights of a training run: the averaged weights if the run keeps them, else the trained ones.

    Args:
      path: a checkpoint, or a work folder, of which the checkpoint with the best validation PSNR is read, or the
        latest if none was validated.

    Returns:
      The parameters and the metadata: `step`, `data`, and if known `init` and `validation_psnr`.

    Raises:
      UserError: there is no checkpoint, or it is damaged.
    """
    path = path.resolve()
    if (path / "params").is_dir():
        checkpoint = path
    else:
        steps = [c for c in (path / FOLDER).glob("*") if c.name.isdigit() and (c / "about" / "metadata").exists()]
        if not steps:
            raise UserError(
                f"{path} contains no training checkpoint: pass the work folder of a training run, or a weights file"
            )
        checkpoint = max(steps, key=lambda c: (read_about(c).get("psnr", -1.0), int(c.name)))
    try:
        about = read_about(checkpoint)
        item = checkpoint / ("ema" if (checkpoint / "ema").is_dir() else "params")
        with ocp.StandardCheckpointer() as checkpointer:
            saved = checkpointer.metadata(item).item_metadata.tree
            # As NumPy arrays, because this machine may lack the devices that wrote the checkpoint.
            params = checkpointer.restore(item, jax.tree.map(lambda x: np.empty(x.shape, x.dtype), saved))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"the checkpoint {checkpoint} is damaged ({error}): pass an earlier one") from error
    metadata = {"step": str(about["step"]), "data": about["config"]["data"]["name"]}
    if about["config"].get("init"):
        metadata["init"] = about["config"]["init"]
    if "psnr" in about:
        metadata["validation_psnr"] = f"{about['psnr']:.3f}"
    return params, metadata
