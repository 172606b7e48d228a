"""Checkpoints of a training run, written by Orbax while training goes on."""

import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from ml_collections import ConfigDict
from orbax.checkpoint import checkpoint_managers as managers

import a2f_jax
from a2f_jax.errors import UserError
from a2f_jax.models import checkpoint as layout
from a2f_jax.training.state import TrainState


class Checkpoints:
    """Keeps the last `config.keep_checkpoints` checkpoints of a work folder and the best by validation PSNR."""

    def __init__(self, workdir: pathlib.Path, config: ConfigDict):
        self._config = config
        self._folder = workdir.resolve() / layout.FOLDER
        keep = [
            managers.LatestN(config.keep_checkpoints),
            managers.BestN(get_metric_fn=lambda m: m["psnr"], n=1, keep_checkpoints_without_metrics=False),
        ]
        try:
            self._manager = ocp.CheckpointManager(
                self._folder,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=managers.AnyPreservationPolicy(keep), cleanup_tmp_directories=True
                ),
            )
        except OSError as error:
            raise UserError(f"cannot write checkpoints to {self._folder}: {error.strerror or error}") from error

    def save(self, state: TrainState, scores: dict[str, float] | None) -> None:
        """Starts to write a checkpoint; waits for the one before it.

        Args:
          state: global arrays, not donated before the next call (`Spmd.get_state` copies).
          scores: `psnr` and `ssim` of validation at this step, if there was one.
        """
        step = int(state.step)
        about = {
            "step": step,
            "version": a2f_jax.__version__,
            "config": self._config.to_dict(),
            **(scores or {}),
        }
        items: dict[str, Any] = {
            "params": ocp.args.StandardSave(state.params),
            "optimizer": ocp.args.StandardSave(state.opt_state),
            "about": ocp.args.JsonSave(about),
        }
        if state.ema is not None:
            items["ema"] = ocp.args.StandardSave(state.ema)
        self._manager.save(step, args=ocp.args.Composite(**items), metrics=scores, force=True)

    def restore(self, like: TrainState) -> TrainState | None:
        """Reads the newest checkpoint; one that is damaged is reported and the one before it used.

        Args:
          like: a state of the same structure, whose shardings the result takes over.

        Returns:
          The state, or None if there is no checkpoint.

        Raises:
          UserError: there are checkpoints, but none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                return self._restore(step, like)
            except Exception as error:  # a damaged file can raise anything; the message is the user's clue
                logging.warning("The checkpoint of step %d is damaged and left out: %s", step, error)
        if steps:
            raise UserError(f"none of the checkpoints in {self._folder} can be read: choose a new --workdir")
        return None

    def _restore(self, step: int, like: TrainState) -> TrainState:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = {
            "params": ocp.args.StandardRestore(abstract.params),
            "optimizer": ocp.args.StandardRestore(abstract.opt_state),
        }
        if like.ema is not None:
            items["ema"] = ocp.args.StandardRestore(abstract.ema)
        found = self._manager.restore(step, args=ocp.args.Composite(**items))
        return TrainState(
            step=jax.device_put(np.int32(step), like.step.sharding),
            params=found["params"],
            ema=found["ema"] if like.ema is not None else None,
            opt_state=found["optimizer"],
        )

    def close(self) -> None:
        """Waits until everything is written."""
        self._manager.close()
