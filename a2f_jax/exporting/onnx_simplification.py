"""Merges nodes of ONNX graphs: what a convolution, an activation, or a dense layer can do by itself."""

import collections
import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(eq=False)
class Node:
    """A node of an ONNX graph.

    Attributes:
      operation: the type of the ONNX operator.
      name: the name of the node.
      inputs: the names of its inputs.
      outputs: the names of its outputs.
      attributes: its attributes.
    """

    operation: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]


Constants = dict[str, np.ndarray]


class _Graph:
    # Nodes by what they compute, and by what they use.

    def __init__(self, nodes: list[Node], constants: Constants, output: str):
        self.constants, self.output = constants, output
        self.producers = {name: node for node in nodes for name in node.outputs}
        self._users: dict[str, list[Node]] = collections.defaultdict(list)
        for node in nodes:
            self._use(node)

    def _use(self, node: Node) -> None:
        for name in node.inputs:
            self._users[name].append(node)

    def uses(self, name: str) -> int:
        return len(self._users[name]) + (name == self.output)

    def only_use(self, name: str, *operations: str) -> Node | None:
        # The node that computes a value, if it is one of these and the value is used once.
        node = self.producers.get(name)
        return node if node and node.operation in operations and self.uses(name) == 1 else None

    def rewrite(self, node: Node, operation: str, inputs: list[str], **attributes: Any) -> None:
        # Makes another node of a node, and removes those that nothing uses any longer.
        before, node.operation, node.inputs, node.attributes = node.inputs, operation, inputs, attributes
        self._use(node)
        self._release(node, before)

    def remove(self, node: Node, by: str) -> None:
        # Lets all that use the output of a node use another value instead.
        (old,) = node.outputs
        for user in self._users.pop(old, []):
            user.inputs[:] = [by if name == old else name for name in user.inputs]
            self._users[by].append(user)
        if self.output == old:
            self.output = by
        self._discard(node)

    def _release(self, node: Node, inputs: list[str]) -> None:
        for name in inputs:
            self._users[name].remove(node)
            unused = self.producers.get(name)
            if unused and not any(self.uses(output) for output in unused.outputs):
                self._discard(unused)

    def _discard(self, node: Node) -> None:
        inputs, node.operation, node.inputs = node.inputs, "", []
        for name in node.outputs:
            del self.producers[name]
        self._release(node, inputs)

    def with_constant(self, node: Node) -> tuple[str, np.ndarray] | None:
        # The computed and the constant input of an operation with one of either.
        for x, c in (node.inputs, node.inputs[::-1]):
            if c in self.constants and x not in self.constants:
                return x, self.constants[c]
        return None


def _per_channel(array: np.ndarray, channels: int) -> np.ndarray | None:
    # The values for each channel of `[N, C, H, W]` of what is broadcast to it, if it is the same for all pixels.
    if array.size == 1:
        return np.broadcast_to(array.reshape(()), channels)
    return array.reshape(-1) if array.ndim == 4 and array.shape[1] == array.size == channels else None


def _merge_into_convolution(graph: _Graph, node: Node) -> bool:
    # conv + bias, and conv · factor.
    if node.operation not in ("Add", "Mul") or not (found := graph.with_constant(node)):
        return False
    conv = graph.only_use(found[0], "Conv", "ConvTranspose")
    if not conv or any(graph.uses(name) > 1 for name in conv.inputs[1:]):
        return False
    axis = 0 if conv.operation == "Conv" else 1  # of the output channels
    weight = graph.constants[conv.inputs[1]]
    values = _per_channel(found[1], weight.shape[axis])
    if values is None:
        return False
    bias = graph.constants[conv.inputs[2]] if len(conv.inputs) > 2 else np.zeros_like(values)
    if node.operation == "Mul":
        shape = [len(values) if i == axis else 1 for i in range(4)]
        graph.constants[conv.inputs[1]] = weight * values.reshape(shape)
    bias = bias + values if node.operation == "Add" else bias * values
    name = f"{conv.name}/bias"
    graph.constants[name] = bias
    graph.rewrite(conv, conv.operation, [*conv.inputs[:2], name], **conv.attributes)
    graph.remove(node, conv.outputs[0])
    return True


def _merge_into_dense(graph: _Graph, node: Node) -> bool:
    # x @ weight + bias
    if node.operation != "Add" or not (found := graph.with_constant(node)):
        return False
    product = graph.only_use(found[0], "MatMul")
    if not product or found[1].ndim != 2 or len(found[1]) != 1:
        return False
    name = f"{product.name}/bias"
    graph.constants[name] = found[1].reshape(-1)
    graph.rewrite(product, "Gemm", [*product.inputs, name])
    graph.remove(node, product.outputs[0])
    return True


def _is_zero(graph: _Graph, name: str) -> bool:
    constant = graph.constants.get(name)
    return constant is not None and constant.size == 1 and constant.item() == 0


def _recognize_leaky_relu(graph: _Graph, node: Node) -> bool:
    # where(x >= 0, x, slope · x)
    if node.operation != "Where":
        return False
    condition, x, product = node.inputs
    compared, scaled = graph.only_use(condition, "GreaterOrEqual"), graph.only_use(product, "Mul")
    if not compared or not scaled or compared.inputs[0] != x or not _is_zero(graph, compared.inputs[1]):
        return False
    found = graph.with_constant(scaled)
    if not found or found[0] != x or found[1].size != 1:
        return False
    graph.rewrite(node, "LeakyRelu", [x], alpha=float(found[1].item()))
    return True


def _recognize_prelu(graph: _Graph, node: Node) -> bool:
    # max(x, 0) + slope · min(x, 0)
    if node.operation != "Add":
        return False
    for first, second in (node.inputs, node.inputs[::-1]):
        positive, scaled = graph.only_use(first, "Relu"), graph.only_use(second, "Mul")
        found = graph.with_constant(scaled) if scaled else None
        negative = graph.only_use(found[0], "Min") if found else None
        if not positive or not found or not negative or not _is_zero(graph, negative.inputs[1]):
            continue
        if negative.inputs[0] == positive.inputs[0]:
            name = f"{node.name}/slope"
            graph.constants[name] = found[1].reshape(found[1].shape[1:] or (1,))
            graph.rewrite(node, "PRelu", [positive.inputs[0], name])
            return True
    return False


def _join_groups(graph: _Graph, node: Node) -> bool:
    # One convolution for each of the groups of channels, as is faster in XLA on a CPU.
    if node.operation != "Concat" or node.attributes["axis"] != 1:
        return False
    convs = [conv for name in node.inputs if (conv := graph.only_use(name, "Conv"))]
    split = graph.producers.get(convs[0].inputs[0]) if convs else None
    if not split or split.operation != "Split" or split.attributes["axis"] != 1 or len(convs) != len(node.inputs):
        return False
    same = all(conv.attributes == convs[0].attributes and len(conv.inputs) == 2 for conv in convs)
    if not same or [conv.inputs[0] for conv in convs] != split.outputs or convs[0].attributes["group"] != 1:
        return False
    name = f"{node.name}/weight"
    graph.constants[name] = np.concatenate([graph.constants[conv.inputs[1]] for conv in convs])
    graph.rewrite(node, "Conv", [split.inputs[0], name], **{**convs[0].attributes, "group": len(convs)})
    return True


_MERGES = (
    _join_groups,
    _merge_into_convolution,
    _merge_into_dense,
    _recognize_leaky_relu,
    _recognize_prelu,
)


def simplify(nodes: list[Node], constants: Constants, output: str) -> tuple[list[Node], Constants, str]:
    """Merges nodes, and removes what the output does not depend on.

    Args:
      nodes: the nodes, each after those that it depends on.
      constants: the constants by name.
      output: the name of the output.

    Returns:
      The nodes, the constants, and the name of the output, after it.
    """
    nodes, constants = _needed(nodes, output), dict(constants)
    graph = _Graph(nodes, constants, output)
    for node in nodes:
        while any(merge(graph, node) for merge in _MERGES):
            pass
    nodes = _needed(nodes, graph.output)
    return nodes, _shared(nodes, constants), graph.output


def _shared(nodes: list[Node], constants: Constants) -> Constants:
    # The constants that are used, each of them once: recursive networks use the same weights repeatedly.
    kept: dict[Any, str] = {}
    for node in nodes:
        for i, name in enumerate(node.inputs):
            if name in constants:
                array = constants[name]
                node.inputs[i] = kept.setdefault((array.dtype, array.shape, array.tobytes()), name)
    return {name: constants[name] for name in kept.values()}


def _needed(nodes: list[Node], output: str) -> list[Node]:
    needed, kept = {output}, []
    for node in reversed(nodes):
        if needed & {*node.outputs}:
            needed |= {*node.inputs}
            kept.append(node)
    return kept[::-1]
