"""The layout of training checkpoints, as far as using their weights needs it.

A work folder holds `checkpoints/<step>/`, each with the items `params`, `ema` (where the run averages its
weights), `optimizer` and `about` (JSON: step, config, the library's version, validation scores).
"""

import json
import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp

from a2f_jax.errors import UserError
from a2f_jax.models.a2f import Params

FOLDER = "checkpoints"


def read_about(checkpoint: pathlib.Path) -> dict:
    """Returns what a checkpoint says of itself: `step`, `version`, `config` and, validated, `psnr` and `ssim`."""
    return json.loads((checkpoint / "about" / "metadata").read_text())


def read_checkpoint(path: pathlib.Path) -> tuple[Params, dict[str, str]]:
    """Reads the weights of a training run, the averaged ones where there are any.

    Args:
      path: a work folder (its checkpoint with the best validation PSNR, or the last) or one checkpoint in it.

    Returns:
      The parameters and what is known of them.

    Raises:
      UserError: there is no checkpoint, or it is damaged.
    """
    path = path.resolve()
    if (path / "params").is_dir():
        checkpoint = path
    else:
        steps = [c for c in (path / FOLDER).glob("*") if c.name.isdigit() and (c / "about" / "metadata").exists()]
        if not steps:
            raise UserError(f"{path} holds no training checkpoint: name a run's --workdir or a weights file")
        checkpoint = max(steps, key=lambda c: (read_about(c).get("psnr", -1.0), int(c.name)))
    try:
        about = read_about(checkpoint)
        item = checkpoint / ("ema" if (checkpoint / "ema").is_dir() else "params")
        with ocp.StandardCheckpointer() as checkpointer:
            saved = checkpointer.metadata(item).item_metadata.tree
            # As NumPy arrays: the devices that wrote the checkpoint need not be here.
            params = checkpointer.restore(item, jax.tree.map(lambda x: np.empty(x.shape, x.dtype), saved))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"the checkpoint {checkpoint} is damaged ({error}): name an earlier one") from error
    metadata = {"step": str(about["step"]), "data": about["config"]["data"]["name"]}
    if about["config"].get("init"):
        metadata["init"] = about["config"]["init"]
    if "psnr" in about:
        metadata["validation_psnr"] = f"{about['psnr']:.3f}"
    return params, metadata
