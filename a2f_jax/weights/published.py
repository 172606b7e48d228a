"""Converts the names and the layout of the weights that the paper's authors published."""

import re

import flax.traverse_util
import numpy as np

from a2f_jax.models.a2f import Params

# The authors' names and ours. The authors keep the parts of block i in six separate lists.
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
    # PyTorch's kernels are [out, in, h, w]; ours are [h, w, in, out], or [in, out] where the kernel is 1×1.
    value = value.astype(np.float32)
    if leaf == "v":
        return value.transpose(2, 3, 1, 0)
    if leaf == "kernel":
        return value.reshape(value.shape[:2]).T  # fails unless the kernel is 1×1
    return value.reshape(()) if leaf.startswith("lambda") else value.reshape(-1)


def params_from_published(tensors: dict[str, np.ndarray]) -> Params:
    """Converts the authors' state dict to a parameter tree of `A2F`.

    Args:
      tensors: the tensors in PyTorch's layout, by the authors' names, with or without the prefix `module.`.

    Returns:
      The parameter tree, float32.

    Raises:
      ValueError: the name or the number of dimensions of a tensor does not occur in A2F.
    """
    flat: dict[str, np.ndarray] = {}
    for name, value in tensors.items():
        ours = _rename(name)
        if ours is None:
            raise ValueError(f"tensor {name!r} does not belong to A2F")
        try:
            flat[ours] = _convert(ours.split(".")[-1], value)
        except (ValueError, IndexError):
            raise ValueError(f"tensor {name!r} has an unexpected shape: {value.shape}") from None
    return flax.traverse_util.unflatten_dict(flat, sep=".")
