"""Checkpoints of a training run, written asynchronously by Orbax."""

import json
import math
import pathlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict
from orbax.checkpoint import checkpoint_managers as managers

import a2f_jax
from a2f_jax import buckets
from a2f_jax.errors import StorageError, UserError, count_of
from a2f_jax.files import replacing, require_space, resolved
from a2f_jax.training.processes import failing_together
from a2f_jax.training.settings import check_resume, stored
from a2f_jax.training.state import TrainState
from a2f_jax.weights import training_run as layout

# What TensorStore reports for files that are missing, truncated or corrupt.
_DAMAGE = re.compile(r"(DATA_LOSS|OUT_OF_RANGE|NOT_FOUND): Error|(FAILED_PRECONDITION): Error reading")
_FULL = re.compile(r"No space left|quota exceeded", re.IGNORECASE)  # ENOSPC and EDQUOT, as the system names them


def state_bytes(state: TrainState) -> int:
    """Returns the size of a state in bytes."""
    return sum(x.nbytes for x in jax.tree.leaves(state))


Scores = dict[int, dict[str, float]]
"""PSNR and SSIM of checkpoints, by their steps."""


class _BestScore:
    """The Orbax policy that keeps the checkpoint with the best validation PSNR, of each of several kinds of scores.

    Orbax's own `BestN` needs the score when a checkpoint is saved, but validation follows the saving.
    """

    def __init__(self, *kinds: Scores):
        self._kinds = kinds

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        steps = {checkpoint.step for checkpoint in checkpoints}
        best = {
            max(steps & scores.keys(), key=lambda step: (scores[step]["psnr"], step), default=None)
            for scores in self._kinds
        }
        return [checkpoint.step in best for checkpoint in checkpoints]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


class Checkpoints:
    """Saves and restores checkpoints.

    Keeps the last `config.keep_checkpoints` checkpoints and the one with the best validation PSNR. If the validation
    images have changed, it also keeps the best one on the former images.

    Args:
      workdir: the work folder, local or in a bucket.
      config: the settings of the run, which are stored in every checkpoint.
      say: prints a message for the user.

    Raises:
      UserError: the work folder cannot be written.
    """

    def __init__(self, workdir: pathlib.Path, config: ConfigDict, say: Callable[[str], None]):
        self._config, self._say = config, say
        self._folder = resolved(workdir) / layout.FOLDER
        self._scores: Scores = {}
        self._former_scores: Scores = {}  # on other images
        keep = [managers.LatestN(config.keep_checkpoints), _BestScore(self._scores, self._former_scores)]
        # Orbax treats the path as a pattern, does not find what it has written, and leaves the checkpoints incomplete.
        if unsuitable := sorted({*"[]\\"} & {*self._folder.as_posix()}):
            raise UserError(
                f"checkpoints cannot be stored in {self._folder}: choose a work folder whose full path does not "
                f"contain {' or '.join(unsuitable)}"
            )
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
        self._validation: dict[str, Any] = {"validation": layout.validation_settings(stored(config))}
        self._read_scores()

    def _read_scores(self) -> None:
        self._scores.clear()  # which Orbax looks at as well
        self._former_scores.clear()
        for step in self.steps:
            about = self._about(step)
            if math.isfinite(about.get("psnr", math.nan)):
                # Scores on other images cannot be compared with those that this run will get.
                scores = self._scores if layout.are_comparable(about, self._validation) else self._former_scores
                scores[step] = {name: about[name] for name in ("psnr", "ssim")}

    def identify_images(self, digest: str) -> None:
        """Says which images the run is validated on. Scores on others no longer count, with a message.

        Args:
          digest: of the images, as `digest_of` returns it.
        """
        known_images = "images" in self._validation
        self._validation["images"] = digest
        known = set(self._former_scores) if known_images else set()
        self._read_scores()
        if gone := len(self._former_scores.keys() - known):
            self._say(
                f"The validation images have changed: the scores of {count_of(gone, 'checkpoint')} on the former "
                "images no longer count; the best of these checkpoints is kept"
            )

    @property
    def steps(self) -> list[int]:
        """The steps of all checkpoints, in ascending order."""
        return sorted(self._manager.all_steps())

    def _about(self, step: int) -> dict[str, Any]:
        try:
            return layout.read_about(self._folder / str(step))
        except (FileNotFoundError, ValueError):  # `restore` reports the damage
            return {}

    def check_settings(self, accept_changes: bool) -> None:
        """Checks that the run may resume with the settings of this config.

        Args:
          accept_changes: whether to resume although settings that affect the result have changed.

        Raises:
          UserError: the settings do not fit the newest checkpoint.
        """
        about = next(filter(None, map(self._about, reversed(self.steps))), None)
        if about is not None:
            check_resume(about["config"], self._config, self._folder.parent, accept_changes)

    def check_space(self, state: TrainState) -> None:
        """Checks that the disk has room for the checkpoints that the run will keep.

        Args:
          state: a state of the size of those to be saved.

        Raises:
          UserError: the disk is too full.
        """
        existing = len(self.steps)
        every = min(self._config.checkpoint_every, self._config.validate_every)
        to_come = -(-(self._config.steps - max(self.steps, default=0)) // every)
        # The run keeps the last ones and the best one, and writes a new one before it deletes an old one.
        count = min(self._config.keep_checkpoints + 2, existing + to_come) - existing
        if to_come > 0:
            self._require_space(state, max(count, 1))

    def _require_space(self, state: TrainState, count: int) -> None:
        require_space(
            self._folder,
            count * state_bytes(state) * 5 // 4,
            "the next checkpoint" if count == 1 else f"writing the next {count} checkpoints",
            remedy=f"{self._saved()}. Free some space, then resume",
        )

    def save(self, state: TrainState) -> None:
        """Starts writing a checkpoint, after waiting for the previous one.

        Args:
          state: global arrays that will not be donated, as returned by `Spmd.get_state`.

        Raises:
          UserError: this checkpoint or the previous one could not be written.
        """
        step = int(state.step)
        about = {"step": step, "version": a2f_jax.__version__, "config": stored(self._config)}
        items: dict[str, Any] = {
            "params": ocp.args.StandardSave(state.params),
            "optimizer": ocp.args.StandardSave(state.opt_state),
            "about": ocp.args.JsonSave(about),
        }
        if state.ema is not None:
            items["ema"] = ocp.args.StandardSave(state.ema)
        # Checked before Orbax begins, because it does not stop cleanly in the middle of a checkpoint.
        with failing_together():
            self._require_space(state, 1)
        try:
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)
        except Exception as error:  # Orbax and TensorStore wrap the error of the operating system
            raise self._unwritable(error) from error

    def is_scored(self, step: int) -> bool:
        """Returns whether the checkpoint of a step has validation scores."""
        return step in self._scores

    def record(self, step: int, scores: Mapping[str, float]) -> None:
        """Adds validation scores to a checkpoint, after waiting until it is written.

        Args:
          step: the step of the checkpoint.
          scores: `psnr` in dB and `ssim`.

        Raises:
          UserError: the checkpoint or the scores could not be written.
        """
        with failing_together():
            self.wait()
            if jax.process_index() == 0:
                content = {**scores, **self._validation}
                with replacing(self._folder / str(step) / layout.SCORES) as file:
                    file.write(json.dumps(content).encode())
        self._scores[step] = dict(scores)

    def _unwritable(self, error: Exception) -> UserError:
        # The error of the operating system is at the end of the message that wraps it, before TensorStore's settings.
        reason = " ".join(str(error).split()).partition(" [tensorstore_spec=")[0][-200:]
        message = f"cannot write a checkpoint to {self._folder}: {reason}; {self._saved()}"
        if _FULL.search(reason):
            return UserError(f"{message}. Free some space, then resume")
        return StorageError(f"{message}. Check the {self._place}, then resume")

    @property
    def _place(self) -> str:
        return "bucket" if buckets.in_bucket(self._folder) else "file system"

    def _saved(self) -> str:
        return f"step {self.steps[-1]} is saved" if self.steps else "no checkpoint is saved yet"

    def restore(self, like: TrainState) -> TrainState | None:
        """Restores the newest checkpoint; a damaged one is moved aside and the previous one used.

        Only missing, truncated and corrupt files count as damage. After any other error, no file is touched.

        Args:
          like: a state with the expected structure and shardings.

        Returns:
          The state, or None if there is no checkpoint.

        Raises:
          UserError: there are checkpoints, but all of them are damaged, or they cannot be read, for example without
            permission; `StorageError` if that may pass.
        """
        steps = self.steps[::-1]
        for step in steps:
            try:
                layout.read_about(self._folder / str(step))
                return self._restore(step, like)
            except Exception as error:
                self._check_storage(step, error)
                try:
                    reason = self._damage(step, like, error)
                except OSError as failure:
                    self._check_storage(step, failure)
                    raise
                if reason is None:
                    raise
                aside = self._move_aside(step)
                self._say(f"The checkpoint of step {step} is damaged and was moved to {aside}: {reason}")
        if steps:
            raise UserError(f"all checkpoints in {self._folder.parent} are damaged: use another work folder")
        return None

    def _check_storage(self, step: int, error: Exception) -> None:
        action = f"cannot read the checkpoint of step {step} in {self._folder}"
        if failure := layout.storage_error(error, action):
            raise type(failure)(f"{failure}. Check the {self._place}, then resume") from error

    def _damage(self, step: int, like: TrainState, error: Exception) -> str | None:
        folder = self._folder / str(step)
        for item in ("params", "optimizer", *(("ema",) if like.ema is not None and (folder / "ema").exists() else ())):
            for name in ("_METADATA", "manifest.ocdbt"):
                if not (folder / item / name).is_file():
                    return f"{item}/{name} is missing"
        for cause in _causes(error):
            match cause:
                case FileNotFoundError():
                    return f"{cause.filename or cause} is missing"
                case json.JSONDecodeError() | UnicodeDecodeError() | layout.MetadataError():
                    return "a JSON file in it is not valid"
                case _ if found := _DAMAGE.search(str(cause)):
                    return f"its arrays cannot be read ({found[1] or found[2]})"
        return None

    def _move_aside(self, step: int) -> pathlib.Path:
        aside = self._folder.parent / "damaged" / f"{step}-{time.time():.0f}"
        with failing_together():
            if jax.process_index() == 0:
                try:
                    if buckets.in_bucket(aside):
                        buckets.move_folder(self._folder / str(step), aside)
                    else:
                        aside.parent.mkdir(exist_ok=True)
                        (self._folder / str(step)).replace(aside)
                except OSError as error:
                    raise UserError(
                        f"cannot move the damaged checkpoint of step {step} to {aside}: {error.strerror}"
                    ) from error
        self._manager.reload()
        self._scores.pop(step, None)
        self._former_scores.pop(step, None)
        return aside

    def _restore(self, step: int, like: TrainState) -> TrainState:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = {
            "params": ocp.args.StandardRestore(abstract.params),
            "optimizer": ocp.args.StandardRestore(abstract.opt_state),
        }
        averaged = like.ema is not None and (self._folder / str(step) / "ema").is_dir()
        if averaged:
            items["ema"] = ocp.args.StandardRestore(abstract.ema)
        with layout.restoring:
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
        try:
            self.wait()
        finally:
            self._manager.close()
