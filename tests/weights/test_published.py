"""Conversion of the authors' names and layouts, from state dicts synthesized from our own parameters."""

import jax
import numpy as np
import pytest

from a2f_jax.models.a2f import A2F
from a2f_jax.weights.published import params_from_published


def as_published(params):
    """Returns our parameters under the authors' names and in PyTorch's layout."""
    tensors = {}

    def weight_normalized(theirs, ours):
        tensors[f"{theirs}.weight_v"] = np.transpose(ours["v"], (3, 2, 0, 1))
        tensors[f"{theirs}.weight_g"] = np.reshape(ours["g"], (-1, 1, 1, 1))
        tensors[f"{theirs}.bias"] = np.asarray(ours["bias"])

    def pointwise(theirs, ours):
        tensors[f"{theirs}.weight"] = np.transpose(ours["kernel"])[:, :, None, None]
        if "bias" in ours:
            tensors[f"{theirs}.bias"] = np.asarray(ours["bias"])

    for part in ("head", "tail", "skip"):
        weight_normalized(f"{part}.0", params[part])
    for i in range(sum(name.startswith("block") for name in params)):
        block = params[f"block_{i:02d}"]
        weight_normalized(f"body.{i}.body.0", block["expand"])
        weight_normalized(f"body.{i}.body.2", block["reduce"])
        pointwise(f"fusion_conv_list.{i}.0", block["projection"])
        pointwise(f"fusion_conv_list.{i}.1.conv_du.0", block["attention"]["squeeze"])
        pointwise(f"fusion_conv_list.{i}.1.conv_du.2", block["attention"]["excite"])
        for theirs, ours in (("x", "lambda_x"), ("res", "lambda_res"), ("auxilary", "lambda_aux")):
            tensors[f"{theirs}_scale_list.{i}.scale"] = np.reshape(block[ours], (1,))
    return tensors


@pytest.fixture(scope="module")
def params(random_params):
    # More than ten blocks, so that block_02 and block_10 must be told apart.
    return random_params(A2F(scale=2, features=16, blocks=11))


@pytest.mark.parametrize("prefix", ["", "module."])  # a model saved inside DataParallel
def test_names_and_layouts_are_converted_to_ours(params, prefix):
    found = params_from_published({prefix + k: v for k, v in as_published(params).items()})
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_a_tensor_of_another_architecture_is_named():
    with pytest.raises(ValueError, match=r"'layer1\.conv\.weight' does not belong to A2F"):
        params_from_published({"layer1.conv.weight": np.zeros((4, 3, 3, 3))})


def test_a_tensor_with_another_number_of_dimensions_is_named():
    with pytest.raises(ValueError, match=r"'head.0.weight_v' has an unexpected shape: \(4, 3\)"):
        params_from_published({"head.0.weight_v": np.zeros((4, 3))})


def test_a_projection_with_a_larger_kernel_is_named():
    with pytest.raises(ValueError, match=r"'fusion_conv_list.0.0.weight' has an unexpected shape: \(4, 8, 3, 3\)"):
        params_from_published({"fusion_conv_list.0.0.weight": np.zeros((4, 8, 3, 3))})
