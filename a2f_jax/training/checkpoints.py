"""Checkpoints of a training run, written by Orbax while training goes on."""

import pathlib
import shutil
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from ml_collections import ConfigDict
from orbax.checkpoint import checkpoint_managers as managers

import a2f_jax
from a2f_jax.errors import UserError
from a2f_jax.training.settings import changed_settings
from a2f_jax.training.state import TrainState
from a2f_jax.weights import training_run as layout


def state_bytes(state: TrainState) -> int:
    """Returns how many bytes the values of a state take."""
    return sum(x.nbytes for x in jax.tree.leaves(state))


class Checkpoints:
    """Keeps the last `config.keep_checkpoints` checkpoints of a work folder and the best by validation PSNR.

    Args:
      workdir: the work folder.
      config: the run's settings, kept in every checkpoint.
      say: prints a line for the user.

    Raises:
      UserError: the folder cannot be written.
    """

    def __init__(self, workdir: pathlib.Path, config: ConfigDict, say):
        self._config, self._say = config, say
        self._folder = workdir.resolve() / layout.FOLDER
        keep = [
            managers.LatestN(config.keep_checkpoints),
            managers.BestN(get_metric_fn=lambda m: m["psnr"], n=1, keep_checkpoints_without_metrics=False),
        ]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
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
          state: global arrays, not donated afterwards (`Spmd.get_state` copies).
          scores: `psnr` and `ssim` of validation at this step, if there was one.

        Raises:
          UserError: this checkpoint or the one before it could not be written.
        """
        step = int(state.step)
        about = {"step": step, "version": a2f_jax.__version__, "config": self._config.to_dict(), **(scores or {})}
        items: dict[str, Any] = {
            "params": ocp.args.StandardSave(state.params),
            "optimizer": ocp.args.StandardSave(state.opt_state),
            "about": ocp.args.JsonSave(about),
        }
        if state.ema is not None:
            items["ema"] = ocp.args.StandardSave(state.ema)
        # Before Orbax begins: it does not stop cleanly in the middle of a checkpoint.
        needed, free = state_bytes(state) * 5 // 4, shutil.disk_usage(self._folder).free
        if free < needed:
            raise self._unwritable(f"the disk has {free >> 20} MB left of the {needed >> 20} MB that it takes")
        try:
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=scores, force=True)
        except Exception as error:  # Orbax and TensorStore wrap what the disk says
            raise self._unwritable(error) from error

    def _unwritable(self, error: Exception | str) -> UserError:
        # What the system says stands at the end of what wraps it.
        reason = " ".join(str(error).split())[-200:]
        steps = self._manager.all_steps()
        safe = f"step {max(steps)} is safe" if steps else "nothing is saved yet"
        return UserError(f"cannot write a checkpoint to {self._folder}: {reason}; {safe}. Make room and start again")

    def restore(self, like: TrainState, accept_changes: bool = False) -> TrainState | None:
        """Reads the newest checkpoint; one that is damaged is reported and the one before it used.

        Args:
          like: a state of the same structure, whose shardings the result takes over.
          accept_changes: goes on although settings that matter have changed.

        Returns:
          The state, or None if there is no checkpoint.

        Raises:
          UserError: there are checkpoints, but none can be read, or they were made with other settings.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                about = layout.read_about(self._folder / str(step))
                changes = list(changed_settings(about["config"], self._config.to_dict()))
                if changes and not accept_changes:
                    raise UserError(
                        f"{self._folder.parent} holds a run with other settings ({'; '.join(changes)}): choose a new "
                        "--workdir, or go on with the new ones by --accept-changes"
                    )
                if network := [c for c in changes if c.startswith("model.") and not c.startswith("model.dtype")]:
                    raise UserError(
                        f"{self._folder.parent} holds another network ({'; '.join(network)}): choose a new --workdir; "
                        f"--config.init={self._folder.parent} starts from those of its weights that fit"
                    )
                return self._restore(step, like)
            except UserError:
                raise
            except Exception as error:  # a damaged file can raise anything; its message is the user's clue
                reason = " ".join(str(error).split())[:200]
                self._say(f"The checkpoint of step {step} is damaged and set aside: {reason}")
                self._set_aside(step)
        if steps:
            raise UserError(f"none of the checkpoints in {self._folder} can be read: choose a new --workdir")
        return None

    def _set_aside(self, step: int) -> None:
        """Makes room for a new checkpoint of a step without deleting what is left of the old one."""
        if jax.process_index() == 0:
            aside = self._folder.parent / "damaged"
            aside.mkdir(exist_ok=True)
            (self._folder / str(step)).replace(aside / f"{step}-{time.time():.0f}")
        multihost_utils.sync_global_devices("damaged checkpoint set aside")
        self._manager.reload()

    def _restore(self, step: int, like: TrainState) -> TrainState:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = {
            "params": ocp.args.StandardRestore(abstract.params),
            "optimizer": ocp.args.StandardRestore(abstract.opt_state),
        }
        averaged = like.ema is not None and (self._folder / str(step) / "ema").is_dir()
        if averaged:
            items["ema"] = ocp.args.StandardRestore(abstract.ema)
        found = self._manager.restore(step, args=ocp.args.Composite(**items))
        ema = None
        if like.ema is not None:  # an average that is new starts from the weights
            ema = found["ema"] if averaged else jax.tree.map(jnp.copy, found["params"])
        return TrainState(
            step=jax.device_put(np.int32(step), like.step.sharding),
            params=found["params"],
            ema=ema,
            opt_state=found["optimizer"],
        )

    def wait(self) -> None:
        """Waits until everything is written.

        Raises:
          UserError: the last checkpoint could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Waits until everything is written and lets go of the folder."""
        self.wait()
        self._manager.close()
