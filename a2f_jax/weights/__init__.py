"""Reads and writes weights: safetensors, the authors' PyTorch files, training runs, and the weights in the package."""

import pathlib
import zipfile

import flax.traverse_util
import numpy as np

from a2f_jax.errors import UserError, system_failure
from a2f_jax.models.a2f import Params
from a2f_jax.models.registry import params_from_source, recognize
from a2f_jax.weights.published import params_from_published
from a2f_jax.weights.safetensors_file import name_without_folders, read_metadata, read_safetensors, write_safetensors
from a2f_jax.weights.size_limit import check_file_size, check_tensor_size
from a2f_jax.weights.torch_file import read_state_dict

__all__ = ["name_without_folders", "read_metadata", "read_weights", "shipped_weights", "write_safetensors"]


def shipped_weights() -> dict[str, pathlib.Path]:
    """Returns the weights that ship with the package: their files by names such as `"a2f-sd-x4"`."""
    files = pathlib.Path(__file__).parent.glob("*.safetensors")
    return {file.stem: file for file in sorted(files, key=lambda file: file.stem)}


def _is_torch_file(path: pathlib.Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    # A zip archive or a pickle. A safetensors file starts with the length of its JSON header, which can be any 8 bytes.
    return start.startswith((b"PK\x03\x04", b"\x80")) and start[8:9] != b"{"


def _check_finite(params: Params, path: pathlib.Path) -> None:
    for name, value in flax.traverse_util.flatten_dict(params, sep=".").items():
        if not np.isfinite(value).all():
            raise UserError(
                f"{path} is unusable: parameter {name} contains NaN or infinity, because the file is damaged or its "
                "training diverged; use other weights or an earlier checkpoint"
            )


def _params_from_tensors(tensors: dict[str, np.ndarray], scale: int | None) -> tuple[Params, dict[str, str]]:
    if recognize(tensors) is None:
        return params_from_published(tensors), {}
    name, scale, params = params_from_source(tensors, scale)
    return params, {"network": name, "scale": str(scale)}


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        check_file_size(path)
        opened = np.load(path, allow_pickle=False)
        if not isinstance(opened, np.lib.npyio.NpzFile):
            raise ValueError("it contains a single array")
        with zipfile.ZipFile(path) as archive:
            # A few compressed megabytes can unpack to any number of gigabytes.
            check_tensor_size(sum(member.file_size for member in archive.infolist()))
        with opened as file:
            return dict(file)
    except Exception as error:  # NumPy, zipfile and zlib raise many kinds
        if reason := system_failure(error):
            raise UserError(f"cannot read {path}: {reason}") from error
        raise UserError(f"{path} is not an .npz file or is damaged: {' '.join(str(error).split())}") from error


def read_weights(path: pathlib.Path, scale: int | None = None) -> tuple[Params, dict[str, str]]:
    """Reads parameters from a file or folder of any supported kind.

    Args:
      path: a safetensors file, a PyTorch file or an `.npz` file with the tensors that a network's authors published,
        the work folder of a training run, or one checkpoint in it. Files are told apart by their contents.
      scale: which scale to use, of published weights that serve several.

    Returns:
      The parameters, float32 and weight-normalized where the network is, and the metadata. `"network"` in it names one
      of `a2f_jax.models.registry.PEERS`; without it the parameters are those of an A2F.

    Raises:
      UserError: the file or folder cannot be read or is damaged, or a parameter contains NaN or infinity.
      ValueError: a file contains tensors of an unknown architecture, or has to be told the scale.
    """
    if path.is_dir():
        from a2f_jax.weights.training_run import read_checkpoint  # Orbax takes seconds to import

        params, metadata = read_checkpoint(path)
    elif path.suffix == ".npz":
        params, metadata = _params_from_tensors(_read_npz(path), scale)
        metadata["source"] = "NumPy archive"
    elif _is_torch_file(path):
        params, metadata = _params_from_tensors(read_state_dict(path), scale)
        metadata["source"] = "PyTorch state dict"
    else:
        params, metadata = read_safetensors(path)
    _check_finite(params, path)
    return params, metadata
