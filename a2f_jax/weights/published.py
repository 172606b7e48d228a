"""The names and layout of the weights that the paper's authors published, turned into ours."""

import re

import flax.traverse_util
import numpy as np

from a2f_jax.models.a2f import Params

# The authors' name -> ours. Block i has its parts spread over five lists.
_NAMES = {
    r"(head|tail|skip)\.0\.(bias|weight_g|weight_v)": r"\1.\2",
    r"body\.(\d+)\.body\.0\.(bias|weight_g|weight_v)": r"block_\1.expand.\2",
    r"body\.(\d+)\.body\.2\.(bias|weight_g|weight_v)": r"block_\1.reduce.\2",
    r"fusion_conv_list\.(\d+)\.0\.(weight)": r"block_\1.projection.\2",
    r"fusion_conv_list\.(\d+)\.1\.conv_du\.0\.(bias|weight)": r"block_\1.attention.squeeze.\2",
    r"fusion_conv_list\.(\d+)\.1\.conv_du\.2\.(bias|weight)": r"block_\1.attention.excite.\2",
    r"x_scale_list\.(\d+)\.scale": r"block_\1.lambda_x",
    r"res_scale_list\.(\d+)\.scale": r"block_\1.lambda_res",
    r"auxilary_scale_list\.(\d+)\.scale": r"block_\1.lambda_aux",
}
_LEAVES = {"weight_g": "g", "weight_v": "v", "weight": "kernel", "bias": "bias"}


def _rename(name: str) -> str | None:
    for pattern, ours in _NAMES.items():
        if match := re.fullmatch(pattern, name.removeprefix("module.")):
            *path, leaf = match.expand(ours).split(".")
            path = [re.sub(r"^block_(\d)$", r"block_0\1", part) for part in path]
            return ".".join([*path, _LEAVES.get(leaf, leaf)])
    return None


def _convert(leaf: str, value: np.ndarray) -> np.ndarray:
    """PyTorch's layout to ours: kernels `[out, in, h, w]` → `[h, w, in, out]`, 1×1 kernels → `[in, out]`."""
    value = value.astype(np.float32)
    if leaf == "v":
        return value.transpose(2, 3, 1, 0)
    if leaf == "kernel":
        return value[:, :, 0, 0].T
    return value.reshape(()) if leaf.startswith("lambda") else value.reshape(-1)


def params_from_published(tensors: dict[str, np.ndarray]) -> Params:
    """Turns the authors' state dict into our parameter tree.

    Args:
      tensors: PyTorch's tensors by the authors' names.

    Returns:
      The tree of `A2F`, float32.

    Raises:
      ValueError: a tensor has a name or a shape that A2F does not have.
    """
    flat: dict[str, np.ndarray] = {}
    for name, value in tensors.items():
        ours = _rename(name)
        if ours is None:
            raise ValueError(f"tensor {name!r} is none of A2F's")
        try:
            flat[ours] = _convert(ours.split(".")[-1], value)
        except (ValueError, IndexError):
            raise ValueError(f"tensor {name!r} has shape {value.shape}, which A2F's has not") from None
    return flax.traverse_util.unflatten_dict(flat, sep=".")
