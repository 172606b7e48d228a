"""Models as ONNX graphs with dynamic height, width, and batch size."""

from typing import Any

import jax
import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from a2f_jax.exporting.onnx_simplification import simplify
from a2f_jax.exporting.onnx_translation import Translation

OPSET = 17
"""Version of the ONNX operators: the first that has all that the networks need, for runtimes that are not new."""

_IR_VERSION = 8  # of the file format, which came with opset 17


def onnx_graph(traced: Any, metadata: dict[str, str]) -> onnx.ModelProto:
    """Translates a traced function of one image batch.

    Args:
      traced: a `ClosedJaxpr` from `[batch, height, width, 3]`, whose first three dimensions are symbols, to one output.
      metadata: what the file says about itself.

    Returns:
      The graph, with the input `lr` and the output `sr`, whose layouts and types are those of the function.

    Raises:
      UntranslatableError: an operation of the function has no translation.
    """
    (lr,), (sr,) = traced.in_avals, traced.out_avals
    translation = Translation("lr", [str(dimension) for dimension in lr.shape[:3]])
    output = translation.translate(lr.shape, traced)
    nodes, constants, output = simplify(translation.nodes, translation.constants, output)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node(
                node.operation,
                node.inputs,
                ["sr" if name == output else name for name in node.outputs],
                node.name,
                **node.attributes,
            )
            for node in nodes
        ],
        metadata["variant"],
        [_value("lr", lr)],
        [_value("sr", sr)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION)
    model.producer_name, model.producer_version = metadata["version"].split()
    onnx.helper.set_model_props(model, metadata)
    return model


def _value(name: str, aval: jax.core.ShapedArray) -> onnx.ValueInfoProto:
    shape = [length if isinstance(length, int) else str(length) for length in aval.shape]
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(aval.dtype)), shape)
