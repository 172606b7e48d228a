"""Weights on disk: safetensors, the authors' PyTorch files, training checkpoints."""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import flax.traverse_util
import numpy as np
import safetensors
import safetensors.numpy

from a2f_jax.errors import UserError
from a2f_jax.files import replacing
from a2f_jax.models.a2f import VARIANTS, Params
from a2f_jax.models.model import Model
from a2f_jax.models.published import params_from_published
from a2f_jax.models.torch_file import read_state_dict

_T = TypeVar("_T")

_SHIPPED = pathlib.Path(__file__).parents[1] / "weights"


def _open_safetensors(path: pathlib.Path, read: Callable[[Any], _T]) -> _T:
    try:
        with safetensors.safe_open(path, "np") as file:
            return read(file)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (safetensors.SafetensorError, ValueError, TypeError) as error:
        raise UserError(f"{path} is not a safetensors file or is damaged: {error}") from error


def read_metadata(path: pathlib.Path) -> dict[str, str]:
    """Reads what a safetensors file says of itself; `UserError` if it is none."""
    return _open_safetensors(path, lambda file: dict(file.metadata() or {}))


def _read_safetensors(path: pathlib.Path) -> tuple[Params, dict[str, str]]:
    flat = _open_safetensors(
        path,
        lambda file: {name: np.asarray(file.get_tensor(name), np.float32) for name in file.keys()},  # noqa: SIM118
    )
    return flax.traverse_util.unflatten_dict(flat, sep="."), read_metadata(path)


def _read_published(path: pathlib.Path) -> tuple[Params, dict[str, str]]:
    return params_from_published(read_state_dict(path)), {"source": "PyTorch state dict"}


def shipped() -> dict[str, pathlib.Path]:
    """Returns the weights that come with the package: names such as `"a2f-sd-x4"`, and their files."""
    return {file.stem: file for file in sorted(_SHIPPED.glob("*.safetensors"))}


def load(weights: str | os.PathLike[str], scale: int | None = None) -> Model:
    """Loads weights; the variant and the scale come from the weights themselves.

    Args:
      weights: a `.safetensors` file, the authors' `.pt` or `.pth`, the work folder of a training run (its best
        checkpoint) or one checkpoint in it, or the name of weights that come with the package, such as `"a2f-sd-x4"`
        or, with a scale, `"a2f-sd"`.
      scale: the scale that the weights must have.

    Returns:
      The model, ready to be called.

    Raises:
      UserError: there are no such weights, they are damaged, of another scale, or hold another architecture.
    """
    name = f"{weights}-x{scale}" if scale and str(weights) in VARIANTS else str(weights)
    path = shipped().get(name) or pathlib.Path(weights)
    if not path.exists():
        raise UserError(
            f"no weights at {name}: name a .safetensors or .pt file, a training run's folder, or one of "
            f"{', '.join(shipped())}"
        )
    model = _load_file(path)
    if scale and model.scale != scale:
        raise UserError(f"{path} upscales by {model.scale}, not by {scale}: choose other weights")
    return model


def load_labelled(weights: Sequence[str | os.PathLike[str]]) -> dict[str, Model]:
    """Loads several weights.

    Args:
      weights: see `load`.

    Returns:
      The models by label: the last part of each path, or as many more of its parts as tell all of them apart.

    Raises:
      UserError: some are named twice or cannot be loaded.
    """
    paths = [pathlib.Path(path) for path in weights]
    for depth in range(1, max((len(path.parts) for path in paths), default=0) + 1):
        labels = ["/".join(path.parts[-depth:]) for path in paths]
        if len({*labels}) == len(labels):
            return {label: load(path) for label, path in zip(labels, paths, strict=True)}
    if paths:
        raise UserError(f"--weights {' '.join(map(str, paths))}: name each once")
    return {}


def _load_file(path: pathlib.Path) -> Model:
    try:
        if path.is_dir():
            from a2f_jax.models.checkpoint import read_checkpoint

            params, metadata = read_checkpoint(path)
        elif path.suffix in (".pt", ".pth"):
            params, metadata = _read_published(path)
        else:
            params, metadata = _read_safetensors(path)
        return Model.from_params(params, metadata)
    except ValueError as error:
        raise UserError(f"{path} does not hold A2F weights: {error}") from error


def save(model: Model, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Writes weights as safetensors, with variant and scale in the metadata.

    Args:
      model: the model to keep.
      path: the file, ending in `.safetensors`; replaced at once, never left half-written.
      metadata: added to the model's own.

    Raises:
      UserError: the file has another ending or cannot be written.
    """
    path = pathlib.Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"cannot write weights to {path}: the name must end in .safetensors")
    flat = flax.traverse_util.flatten_dict(model.params, sep=".")
    tensors = {name: np.asarray(value, np.float32, order="C") for name, value in flat.items()}
    about = {**model.metadata, **(metadata or {}), "variant": model.variant, "scale": str(model.scale)}
    with replacing(path) as file:
        file.write(safetensors.numpy.save(tensors, about))
