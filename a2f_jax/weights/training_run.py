"""Reads the weights of a training run from its checkpoints.

A work folder contains `checkpoints/<step>/`. Each checkpoint has the items `params`, `ema` (if the run averages its
weights), `optimizer` and `about` (JSON: step, config and package version). A validated one also has `scores.json`.
"""

import asyncio
import json
import math
import os
import pathlib
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from a2f_jax.buckets import check_checkpoints
from a2f_jax.errors import StorageError, UserError, may_pass, system_failure
from a2f_jax.files import is_folder, resolved
from a2f_jax.models.a2f import Params
from a2f_jax.weights.safetensors_file import name_without_folders

FOLDER = "checkpoints"
SCORES = "scores.json"
"""Written after the checkpoint, because validation follows the saving."""


class _ForgivingLoop(asyncio.SelectorEventLoop):
    """An event loop that may be told of a finished operation after it has been closed, when nobody waits for it."""

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, **options: Any
    ) -> Any:
        try:
            return super().call_soon_threadsafe(callback, *args, **options)
        except RuntimeError:
            if not self.is_closed():
                raise
            return None


class _ForgivingLoops(asyncio.DefaultEventLoopPolicy):
    _loop_factory = _ForgivingLoop


class _LoopPolicy:
    """Of the threads that restore a checkpoint, the first changes the policy of the process, and the last resets it."""

    def __init__(self) -> None:
        self._lock, self._threads = threading.Lock(), 0
        self._usual: asyncio.AbstractEventLoopPolicy | None = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._threads:
                self._usual = asyncio.get_event_loop_policy()
                asyncio.set_event_loop_policy(_ForgivingLoops())
            self._threads += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                asyncio.set_event_loop_policy(self._usual)


restoring = _LoopPolicy()
"""A context in which Orbax restores a checkpoint, which may be damaged.

Orbax closes its event loop at the first array that cannot be read, while TensorStore is still reading others. When
TensorStore then finishes these, on a thread of its own, Python would print a traceback about the closed loop.
"""


# What TensorStore reports when a local file, or a bucket, cannot be read.
_ERROR_NUMBER = re.compile(r"\[os_error_code='(\d+)'\]")
_FAILURES = re.compile(r"(PERMISSION_DENIED|UNKNOWN|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|INTERNAL): Error .*")


def storage_error(error: Exception, action: str) -> UserError | None:
    """Returns the error to raise if a checkpoint cannot be read although it need not be damaged, or else None.

    Args:
      error: the exception raised while the checkpoint was read.
      action: what failed, such as `"cannot read runs/a2f"`.

    Returns:
      A `StorageError` if the same may succeed later, a `UserError` if not, or None if the checkpoint is damaged.
    """
    text = " ".join(str(error).split()).partition(" [tensorstore_spec=")[0]
    if code := _ERROR_NUMBER.search(text):
        error = OSError(int(code[1]), os.strerror(int(code[1])))
    if isinstance(error, OSError):
        reason = system_failure(error)
        kind = StorageError if may_pass(error) else UserError
        return kind(f"{action}: {reason}") if reason else None
    if found := _FAILURES.search(text):
        kind = UserError if found[1] == "PERMISSION_DENIED" else StorageError
        return kind(f"{action}: {found[0][-200:]}")
    return None


class MetadataError(ValueError):
    """The metadata of a checkpoint is JSON, but not what a training run writes."""


def read_about(checkpoint: pathlib.Path) -> dict[str, Any]:
    """Reads the metadata of a checkpoint.

    Returns:
      `step`, `version`, `config` and, once validated, `psnr`, `ssim`, `validation` (see `validation_of`), and `images`,
      a digest of the images.

    Raises:
      OSError: the metadata cannot be read.
      ValueError: the metadata is damaged.
    """
    match json.loads((checkpoint / "about" / "metadata").read_text()):
        case {"step": int(), "config": {"data": {"name": str()}}} as about:
            pass
        case _:
            raise MetadataError("about/metadata lacks the step or the settings of the run")
    try:
        match json.loads((checkpoint / SCORES).read_text()):
            case {"psnr": int() | float(), "ssim": int() | float()} as scores:
                return {**about, **scores}
    except (FileNotFoundError, ValueError):  # not validated, or damaged
        pass
    return about


def validation_of(about: Mapping[str, Any]) -> list[Any]:
    """Returns the settings that a checkpoint was validated with.

    Args:
      about: the contents of the checkpoint, as returned by `read_about`.

    Returns:
      The settings `data.name`, `data.dir` and `validation_images`, and how the images were degraded unless by bicubic
      downscaling, as a list because it is stored as JSON.
    """
    # Scores that earlier versions wrote do not contain it.
    return about.get("validation") or validation_settings(about.get("config", {}))


def validation_settings(config: Mapping[str, Any]) -> list[Any]:
    """Returns the settings of a run that determine its validation images, as `validation_of` does."""
    data = config.get("data", {})
    images = [data.get("name"), data.get("dir"), config.get("validation_images")]
    kind = data.get("degradation", "bicubic")
    return images if kind == "bicubic" else [*images, kind, config.get("degradation")]


def are_comparable(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Returns whether the scores of two checkpoints, or of a checkpoint and a run, are of the same images.

    Args:
      one: the contents of a checkpoint, as returned by `read_about`, or the entries `validation` and `images` alone.
      other: the same for the other.
    """
    digests = [about["images"] for about in (one, other) if about.get("images")]
    if len(digests) == 2:
        # The same settings may stand for other images, of a dataset that was prepared again, and others for the same.
        return digests[0] == digests[1]
    return validation_of(one) == validation_of(other)  # scores of earlier versions lack the digest of the images


def _find_best(folder: pathlib.Path) -> pathlib.Path | None:
    found: dict[int, dict[str, Any]] = {}
    try:
        checkpoints = sorted(folder.iterdir())
    except OSError as error:
        if failure := storage_error(error, f"cannot read {folder}"):
            raise failure from error
        return None
    for checkpoint in checkpoints:
        try:
            # In a bucket, a checkpoint has its name from the start; Orbax marks those that are complete.
            if checkpoint.name.isdigit() and ocp.utils.is_checkpoint_finalized(checkpoint):
                found[int(checkpoint.name)] = read_about(checkpoint)
        except (OSError, ValueError) as error:
            # Damaged ones are skipped: the others can still be used. But one that cannot be read may be the best.
            if failure := storage_error(error, f"cannot read the checkpoint {checkpoint}"):
                raise failure from error
    scored = [step for step in sorted(found) if math.isfinite(found[step].get("psnr", math.nan))]
    if scored:
        latest = found[scored[-1]]
        comparable = [step for step in scored if are_comparable(found[step], latest)]
        return folder / str(max(comparable, key=lambda step: (found[step]["psnr"], step)))
    return folder / str(max(found)) if found else None


def read_checkpoint(path: pathlib.Path) -> tuple[Params, dict[str, str]]:
    """Reads the weights of a training run: the averaged weights if the run keeps them, else the trained ones.

    Args:
      path: a checkpoint, or a work folder, of which the checkpoint with the best validation PSNR is read, or the
        latest if none was validated. Checkpoints that were validated on other images than the latest, and those whose
        metadata is damaged, are not considered.

    Returns:
      The parameters and the metadata: `step`, `data`, if known `init` and `validation_psnr`, for another network than
      A2F `network` and `scale`, and `degradation` if LR was not downscaled bicubically.

    Raises:
      UserError: there is no checkpoint, it is damaged, or it cannot be read; `StorageError` if that may pass.
    """
    check_checkpoints(path)
    path = resolved(path)
    if is_folder(path / "params"):
        checkpoint = path
    else:
        best = _find_best(path / FOLDER)
        if best is None:
            raise UserError(
                f"{path} contains no readable training checkpoint: pass the work folder of a training run, or a "
                "weights file"
            )
        checkpoint = best
    try:
        about = read_about(checkpoint)
        item = checkpoint / ("ema" if (checkpoint / "ema").is_dir() else "params")
        # That of a checkpointer warns that an item has no metadata of its own.
        saved = ocp.StandardCheckpointHandler().metadata(item).tree
        with ocp.StandardCheckpointer() as checkpointer, restoring:
            # As NumPy arrays, because this machine may lack the devices that wrote the checkpoint.
            params = checkpointer.restore(item, jax.tree.map(lambda x: np.empty(x.shape, x.dtype), saved))
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError) as error:  # Orbax raises many kinds
        if failure := storage_error(error, f"cannot read the checkpoint {checkpoint}"):
            raise failure from error
        reason = " ".join(str(error).split())[:150]
        raise UserError(f"the checkpoint {checkpoint} is damaged ({reason}): pass an earlier one") from error
    metadata = {"step": str(about["step"]), "data": about["config"]["data"]["name"]}
    network = about["config"].get("model", {})
    if network.get("name", "a2f") != "a2f":
        metadata |= {"network": network["name"], "scale": str(network["scale"])}
    if (kind := about["config"]["data"].get("degradation", "bicubic")) != "bicubic":
        metadata["degradation"] = kind
    if about["config"].get("init"):
        metadata["init"] = name_without_folders(about["config"]["init"])
    if "psnr" in about:
        metadata["validation_psnr"] = f"{about['psnr']:.3f}"
    return params, metadata
