"""Reads and writes safetensors files: float32 parameters by dotted name, and metadata."""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import flax.traverse_util
import numpy as np
import safetensors
import safetensors.numpy

from a2f_jax.errors import UserError
from a2f_jax.files import as_path, replacing
from a2f_jax.models.a2f import Params
from a2f_jax.weights.size_limit import check_file_size

_T = TypeVar("_T")

_DEEPEST = 20  # parts of the name of a parameter; a tree that is nested more deeply than Python allows cannot be built


def name_without_folders(path: str) -> str:
    """Returns how metadata name the weights that others were made from: without the user's folders.

    Args:
      path: a file, a run, a checkpoint, or a name, such as `"/home/me/runs/a/checkpoints/500"`.

    Returns:
      The last part of it, without `.safetensors`; of a checkpoint, the run and the step, as in `"a/checkpoints/500"`.
    """
    parts = pathlib.PurePath(os.fsencode(path).decode(errors="replace")).parts or (path,)
    return "/".join(parts[-3:] if parts[-2:-1] == ("checkpoints",) else parts[-1:]).removesuffix(".safetensors")


def _open_safetensors(path: pathlib.Path, read: Callable[[Any], _T]) -> _T:
    try:
        check_file_size(path)
        with safetensors.safe_open(path, "np") as file:
            return read(file)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (safetensors.SafetensorError, ValueError, TypeError, AttributeError) as error:  # the last for 8-bit floats
        raise UserError(f"{path} is not a safetensors or PyTorch file, or it is damaged: {error}") from error


def read_metadata(path: pathlib.Path) -> dict[str, str]:
    """Reads the metadata of a safetensors file, without its tensors.

    Raises:
      UserError: the file cannot be read, or is not a safetensors file.
    """
    return _open_safetensors(path, lambda file: dict(file.metadata() or {}))


def read_safetensors(path: pathlib.Path) -> tuple[Params, dict[str, str]]:
    """Reads a parameter tree, converted to float32, and the metadata.

    Raises:
      UserError: the file cannot be read, is not a safetensors file, or is damaged.
    """
    flat = _open_safetensors(
        path,
        lambda file: {name: np.asarray(file.get_tensor(name), np.float32) for name in file.keys()},  # noqa: SIM118
    )
    for name in flat:
        parts = name.split(".")
        if len(parts) > _DEEPEST:
            raise UserError(f"{path} does not contain weights of a network: a name in it has {len(parts)} parts")
        for end in range(1, len(parts)):
            if (outer := ".".join(parts[:end])) in flat:
                raise UserError(f"{path} is damaged: parameter {name} cannot be inside parameter {outer}")
    return flax.traverse_util.unflatten_dict(flat, sep="."), read_metadata(path)


def write_safetensors(path: str | os.PathLike[str], params: Params, metadata: Mapping[str, str]) -> None:
    """Writes a parameter tree, converted to float32, and metadata.

    Args:
      path: the file, ending in `.safetensors`. It is written atomically; an existing file is replaced.
      params: the parameter tree.
      metadata: string values by name.

    Raises:
      UserError: the file has another suffix or cannot be written.
    """
    path = as_path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"cannot write weights to {path}: the file name must end in .safetensors")
    flat = flax.traverse_util.flatten_dict(params, sep=".")
    tensors = {name: np.asarray(value, np.float32, order="C") for name, value in flat.items()}
    with replacing(path) as file:
        file.write(safetensors.numpy.save(tensors, dict(metadata)))
