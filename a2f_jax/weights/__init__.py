"""Weights on disk: safetensors, the authors' PyTorch files, training runs, and the files that ship with the package."""

import pathlib

from a2f_jax.models.a2f import Params
from a2f_jax.weights.published import params_from_published
from a2f_jax.weights.safetensors_file import read_metadata, read_safetensors, write_safetensors
from a2f_jax.weights.torch_file import read_state_dict

__all__ = ["read_metadata", "read_weights", "shipped_weights", "write_safetensors"]


def shipped_weights() -> dict[str, pathlib.Path]:
    """Returns the weights that ship with the package: names such as `"a2f-sd-x4"`, and their files."""
    return {file.stem: file for file in sorted(pathlib.Path(__file__).parent.glob("*.safetensors"))}


def read_weights(path: pathlib.Path) -> tuple[Params, dict[str, str]]:
    """Reads weights of any kind.

    Args:
      path: a `.safetensors` file, the authors' `.pt` or `.pth`, or the work folder of a training run or one
        checkpoint in it.

    Returns:
      The parameters and what is known of them.

    Raises:
      UserError: the file or folder cannot be read.
      ValueError: a PyTorch file holds tensors of another architecture.
    """
    if path.is_dir():
        from a2f_jax.weights.training_run import read_checkpoint  # Orbax takes seconds to import

        return read_checkpoint(path)
    if path.suffix in (".pt", ".pth"):
        return params_from_published(read_state_dict(path)), {"source": "PyTorch state dict"}
    return read_safetensors(path)
