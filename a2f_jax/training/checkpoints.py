"""Checkpoints of a training run, written asynchronously by Orbax."""

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
    """Returns the size of a state in bytes."""
    return sum(x.nbytes for x in jax.tree.leaves(state))


class Checkpoints:
    """Saves and restores checkpoints.

    Keeps the last `config.keep_checkpoints` checkpoints and the one with the best validation PSNR.

    Args:
      workdir: the work folder.
      config: the settings of the run, which are stored in every checkpoint.
      say: prints a message for the user.

    Raises:
      UserError: the work folder cannot be written.
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
        """Starts writing a checkpoint, after waiting for the previous one.

        Args:
          state: global arrays that will not be donated, as returned by `Spmd.get_state`.
          scores: `psnr` and `ssim` of the validation at this step, or None if there was none.

        Raises:
          UserError: this checkpoint or the previous one could not be written.
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
        # Checked before Orbax begins, because it does not stop cleanly in the middle of a checkpoint.
        needed, free = state_bytes(state) * 5 // 4, shutil.disk_usage(self._folder).free
        if free < needed:
            raise self._unwritable(f"it needs {needed >> 20} MB, but the disk has only {free >> 20} MB left")
        try:
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=scores, force=True)
        except Exception as error:  # Orbax and TensorStore wrap the error of the operating system
            raise self._unwritable(error) from error

    def _unwritable(self, error: Exception | str) -> UserError:
        # The error of the operating system is at the end of the message that wraps it.
        reason = " ".join(str(error).split())[-200:]
        steps = self._manager.all_steps()
        safe = f"step {max(steps)} is safe" if steps else "no checkpoint is saved yet"
        return UserError(f"cannot write a checkpoint to {self._folder}: {reason}; {safe}. Free some space, then resume")

    def restore(self, like: TrainState, accept_changes: bool = False) -> TrainState | None:
        """Restores the newest checkpoint; a damaged one is moved aside and the previous one used.

        Args:
          like: a state with the expected structure and shardings.
          accept_changes: whether to resume although settings that affect the result have changed.

        Returns:
          The state, or None if there is no checkpoint.

        Raises:
          UserError: there are checkpoints, but none can be read, or they were written with other settings.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                about = layout.read_about(self._folder / str(step))
                changes = list(changed_settings(about["config"], self._config.to_dict()))
                if changes and not accept_changes:
                    raise UserError(
                        f"{self._folder.parent} holds a run with other settings ({'; '.join(changes)}): choose another "
                        "work folder, or accept the new settings with accept_changes"
                    )
                if network := [c for c in changes if c.startswith("model.") and not c.startswith("model.dtype")]:
                    raise UserError(
                        f"{self._folder.parent} holds another network ({'; '.join(network)}): choose another work "
                        f"folder; config.init={self._folder.parent} starts a new run from the weights that match"
                    )
                return self._restore(step, like)
            except UserError:
                raise
            except Exception as error:  # a damaged file can raise anything
                reason = " ".join(str(error).split())[:200]
                self._say(f"The checkpoint of step {step} is damaged and was moved aside: {reason}")
                self._set_aside(step)
        if steps:
            raise UserError(f"none of the checkpoints in {self._folder} can be read: choose another work folder")
        return None

    def _set_aside(self, step: int) -> None:
        if jax.process_index() == 0:
            aside = self._folder.parent / "damaged"
            aside.mkdir(exist_ok=True)
            (self._folder / str(step)).replace(aside / f"{step}-{time.time():.0f}")
        multihost_utils.sync_global_devices("damaged checkpoint moved aside")
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
        if like.ema is not None:  # a new average starts from the weights
            ema = found["ema"] if averaged else jax.tree.map(jnp.copy, found["params"])
        return TrainState(
            step=jax.device_put(np.int32(step), like.step.sharding),
            params=found["params"],
            ema=ema,
            opt_state=found["optimizer"],
        )

    def wait(self) -> None:
        """Waits until the last checkpoint is written.

        Raises:
          UserError: the last checkpoint could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Waits until the last checkpoint is written, then releases the resources.

        Raises:
          UserError: the last checkpoint could not be written.
        """
        self.wait()
        self._manager.close()
