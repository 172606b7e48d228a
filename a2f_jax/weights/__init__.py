"""Reads and writes weights: safetensors, the authors' PyTorch files, training runs, and the weights in the package."""

import pathlib

from a2f_jax.models.a2f import Params
from a2f_jax.weights.published import params_from_published
from a2f_jax.weights.safetensors_file import read_metadata, read_safetensors, write_safetensors
from a2f_jax.weights.torch_file import read_state_dict

__all__ = ["read_metadata", "read_weights", "shipped_weights", "write_safetensors"]


def shipped_weights() -> dict[str, pathlib.Path]:
    """Returns the weights that ship with the package: their files by names such as `"a2f-sd-x4"`."""
    return {file.stem: file for file in sorted(pathlib.Path(__file__).parent.glob("*.safetensors"))}


def read_weights(path: pathlib.Path) -> tuple[Params, dict[str, str]]:
    """Reads the parameters of an A2F from a file or folder of any supported kind.

    Args:
      path: a `.safetensors` file, a `.pt` or `.pth` file of the paper's authors, the work folder of a training run,
        or one checkpoint in it.

    Returns:
      The parameters, float32 and weight-normalized, and the metadata.

    Raises:
      UserError: the file or folder cannot be read or is damaged.
      ValueError: a PyTorch file contains tensors of another architecture.
    """
    if path.is_dir():
        from a2f_jax.weights.training_run import read_checkpoint  # Orbax takes seconds to import

        return read_checkpoint(path)
    if path.suffix in (".pt", ".pth"):
        return params_from_published(read_state_dict(path)), {"source": "PyTorch state dict"}
    return read_safetensors(path)
