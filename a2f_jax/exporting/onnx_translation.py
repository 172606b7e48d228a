"""Translates traced JAX functions of images to ONNX graphs whose height, width, and batch size are dynamic.

Only the operations of the networks in `a2f_jax.models` are known. JAX convolves channels last and ONNX channels first,
so every tensor remembers in which order the graph holds its axes, and is transposed only where an operation needs
another order: at the input and at the output. What depends on no input is computed at once.
"""

import ast
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Jaxpr, Literal, jaxprs_in_params

from a2f_jax.exporting.onnx_simplification import Node
from a2f_jax.exporting.pixel_shuffles import find_pixel_shuffles
from a2f_jax.models.nan_tracing import CALLS

_ELEMENTWISE = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "max": "Max",
    "min": "Min",
    "neg": "Neg",
    "abs": "Abs",
    "sqrt": "Sqrt",
    "exp": "Exp",
    "erf": "Erf",
    "tanh": "Tanh",
    "round": "Round",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "lt": "Less",
}


class UntranslatableError(ValueError):
    """A function uses an operation that has no translation."""


@dataclasses.dataclass(frozen=True)
class _Variable:
    """A variable of the traced function: a constant, or a tensor that the graph computes.

    Attributes:
      shape: the shape in the traced function, with symbolic dimensions.
      array: the constant, or None. An axis may have length 1 instead of that in `shape`, to be broadcast where it is
        used.
      name: the name of the computed tensor.
      order: axis k of the computed tensor is axis `order[k]` of the variable.
      narrow: the axes of the variable that have length 1 in the computed tensor, although not in `shape`.
      dimension: the symbolic dimension that all values are equal to, if it is known.
      summed: the tensor, and those of its axes, that this is the sum over.
    """

    shape: tuple[Any, ...]
    array: np.ndarray | None = None
    name: str = ""
    order: tuple[int, ...] = ()
    narrow: frozenset[int] = frozenset()
    dimension: Any = None
    summed: "tuple[_Variable, tuple[int, ...]] | None" = None


def _channels_first(rank: int) -> tuple[int, ...]:
    return (0, rank - 1, *range(1, rank - 1)) if rank > 2 else tuple(range(rank))


class Translation:
    """A graph under construction.

    Attributes:
      nodes: the nodes, in the order of computation.
      constants: the constants that they refer to, by name.
    """

    def __init__(self, input_name: str, dimensions: Sequence[str]):
        """Starts with an empty graph.

        Args:
          input_name: the name of the graph's only input.
          dimensions: the names of its symbolic dimensions, in the order of its axes.
        """
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}
        self._input, self._dimensions = input_name, dimensions
        self._scope, self._names = "", {input_name}
        self._lengths: dict[str, str] = {}

    def translate(self, shape: Sequence[Any], traced: Any) -> str:
        """Adds the nodes of a traced function to the graph.

        Args:
          shape: the shape of the graph's input, `[batch, height, width, channels]`.
          traced: the function of the input, a `ClosedJaxpr` with one output.

        Returns:
          The name of the output, whose axes are in the order of the function's output.

        Raises:
          UntranslatableError: an operation has no translation.
        """
        # At once, so that all that follows is in the order of convolutions.
        order = _channels_first(len(shape))
        name = self.add("Transpose", [self._input], perm=order)
        (output,) = self._translate(traced.jaxpr, traced.consts, [_Variable(tuple(shape), name=name, order=order)])
        return self.complete(output, range(len(output.shape)))

    def _translate(self, jaxpr: Jaxpr, consts: Sequence[Any], inputs: Sequence[_Variable]) -> list[_Variable]:
        values: dict[Any, _Variable] = {}

        def read(variable: Any) -> _Variable:
            return _constant(np.asarray(variable.val)) if isinstance(variable, Literal) else values[variable]

        values.update(zip(jaxpr.constvars, (_constant(np.asarray(value)) for value in consts), strict=True))
        values.update(zip(jaxpr.invars, inputs, strict=True))
        shuffles = find_pixel_shuffles(jaxpr)
        outer = self._scope
        for index, equation in enumerate(jaxpr.eqns):
            if index in shuffles:
                shuffle = shuffles[index]
                if shuffle is not None:
                    last, scale, mode = shuffle
                    self._scope = _scope_of(equation, outer)
                    x = self.complete(read(equation.invars[0]), (0, 3, 1, 2))
                    name = self.add("DepthToSpace", [x], blocksize=scale, mode=mode)
                    values[last.outvars[0]] = _Variable(last.outvars[0].aval.shape, name=name, order=(0, 3, 1, 2))
                continue
            self._scope = _scope_of(equation, outer)
            results = self._outputs(equation, [read(variable) for variable in equation.invars])
            values.update(zip(equation.outvars, results, strict=True))
        self._scope = outer
        return [read(variable) for variable in jaxpr.outvars]

    def _outputs(self, equation: Any, inputs: list[_Variable]) -> Sequence[_Variable]:
        name = equation.primitive.name
        inner = list(jaxprs_in_params(equation.params))
        if name in CALLS:
            (called,) = inner
            consts = next((value.consts for value in equation.params.values() if hasattr(value, "consts")), ())
            return self._translate(called, consts, inputs)
        shape = equation.outvars[0].aval.shape
        if equation.outvars[0].aval.dtype.name == "bfloat16" and any(x.array is None for x in inputs):
            raise UntranslatableError("it computes in bfloat16, which runtimes do not support")
        if name == "round" and equation.params["rounding_method"] != jax.lax.RoundingMethod.TO_NEAREST_EVEN:
            raise UntranslatableError("it rounds halves away from zero, which has no translation: use jnp.round")
        if name in _ELEMENTWISE:
            return [self._elementwise(_ELEMENTWISE[name], equation, inputs)]
        if all(x.array is not None for x in inputs) and name not in ("broadcast_in_dim", "dim_as_value"):
            return _computed(equation, inputs)
        if name not in _RULES:
            raise UntranslatableError(f"the operation {name} has no translation")
        result = _RULES[name](self, inputs, shape, {**equation.params, "dtype": equation.outvars[0].aval.dtype})
        return result if isinstance(result, list) else [result]

    # Building blocks of the rules.

    def _unique(self, name: str) -> str:
        unique = name = f"{self._scope}/{name}" if self._scope else name
        count = 1
        while unique in self._names:
            unique, count = f"{name}_{count}", count + 1
        self._names.add(unique)
        return unique

    def add_all(self, operation: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        """Adds a node and returns the names of its outputs."""
        name = self._unique(operation)
        names = [name] if outputs == 1 else [self._unique(f"{operation}_{i}") for i in range(outputs)]
        self.nodes.append(Node(operation, name, list(inputs), names, attributes))
        return names

    def add(self, operation: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Adds a node and returns the name of its output."""
        return self.add_all(operation, inputs, 1, **attributes)[0]

    def store(self, array: Any, name: str = "constant") -> str:
        """Adds a constant and returns its name."""
        name = self._unique(name)
        self.constants[name] = np.ascontiguousarray(array)
        return name

    def arranged(self, x: _Variable, order: Sequence[int] | None = None) -> _Variable:
        """Returns a computed tensor with its axes in an order, by default that in which it is available."""
        if x.array is not None:
            order = tuple(order or range(len(x.shape)))
            narrow = frozenset(axis for axis, length in enumerate(x.array.shape) if length == 1 != x.shape[axis])
            return _Variable(x.shape, name=self.store(x.array.transpose(order)), order=order, narrow=narrow)
        if order is None or tuple(order) == x.order:
            return x
        name = self.add("Transpose", [x.name], perm=[x.order.index(axis) for axis in order])
        return dataclasses.replace(x, name=name, order=tuple(order))

    def complete(self, x: _Variable, order: Sequence[int] | None = None) -> str:
        """Returns the name of a computed tensor of which no axis has still to be broadcast."""
        x = self.arranged(x, order)
        if not x.narrow:
            return x.name
        return self.add("Expand", [x.name, self.lengths([x.shape[axis] for axis in x.order])])

    def lengths(self, shape: Sequence[Any]) -> str:
        """Returns the name of an int64 tensor with the values of dimensions, symbolic or not."""
        if all(isinstance(length, int) for length in shape):
            return self.store(np.array(shape, np.int64), "shape")
        parts = [
            self.store(np.array([length], np.int64)) if isinstance(length, int) else self._length(str(length))
            for length in shape
        ]
        return self.add("Concat", parts, axis=0)

    def _length(self, text: str) -> str:
        if text not in self._lengths:
            scope, self._scope = self._scope, ""  # several may need it
            self._lengths[text] = self._evaluated(ast.parse(text, mode="eval").body, text)
            self._scope = scope
        return self._lengths[text]

    def _evaluated(self, node: ast.AST, text: str) -> str:
        operations = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul"}
        if isinstance(node, ast.Constant):
            return self.store(np.array([node.value], np.int64))
        if isinstance(node, ast.Name):
            axis = self._dimensions.index(node.id)
            return self.add("Shape", [self._input], start=axis, end=axis + 1)
        if isinstance(node, ast.BinOp) and type(node.op) in operations:
            return self.add(operations[type(node.op)], [self._evaluated(x, text) for x in (node.left, node.right)])
        raise UntranslatableError(f"the size {text} has no translation")

    def _elementwise(self, operation: str, equation: Any, inputs: list[_Variable]) -> _Variable:
        shape = equation.outvars[0].aval.shape
        if all(x.array is not None for x in inputs):
            arrays = [np.asarray(x.array) for x in inputs]
            if len({a.ndim for a in arrays}) > 1:  # a scalar and an array
                arrays = [a if a.ndim == len(shape) else a.reshape((1,) * len(shape)) for a in arrays]
            common = np.broadcast_arrays(*arrays)
            return _constant(np.asarray(equation.primitive.bind(*common, **equation.params)), shape)
        if operation == "Div" and _is_mean(inputs):
            source, axes = inputs[0].summed  # type: ignore[misc]
            return self.reduced("ReduceMean", source, axes, shape)
        if operation == "Max" and _is_zero(inputs[1]):
            operation, inputs = "Relu", inputs[:1]
        main = max((x for x in inputs if x.array is None), key=lambda x: (len(x.shape), -len(x.narrow)))
        order = main.order
        names = []
        for x in inputs:
            if x.array is not None and x.array.size == 1:
                names.append(self.store(x.array.reshape(())))
            else:
                names.append(self.arranged(x, order if len(x.shape) == len(order) else None).name)
        wide = [x for x in inputs if len(x.shape) == len(shape)]
        narrow = frozenset(
            axis
            for axis in range(len(shape))
            if shape[axis] != 1 and all(axis in x.narrow if x.array is None else x.array.shape[axis] == 1 for x in wide)
        )
        return _Variable(shape, name=self.add(operation, names), order=order, narrow=narrow)

    def reduced(self, operation: str, x: _Variable, axes: Sequence[int], shape: Sequence[Any]) -> _Variable:
        """Adds a reduction over axes, which disappear or, if the result has as many axes, have length 1 after it."""
        x = dataclasses.replace(self.arranged(x), name=self.complete(x))
        positions = [x.order.index(axis) for axis in axes]
        kept = len(shape) == len(x.shape)
        left = [axis for axis in x.order if kept or axis not in axes]
        order = tuple(sorted(left).index(axis) for axis in left)
        if operation == "ReduceSum":  # whose axes are an input from opset 13 on
            inputs, attributes = [x.name, self.store(np.array(positions, np.int64), "axes")], {}
        else:
            inputs, attributes = [x.name], {"axes": positions}
        return _Variable(tuple(shape), name=self.add(operation, inputs, keepdims=int(kept), **attributes), order=order)


def _scope_of(equation: Any, outer: str) -> str:
    stack = str(equation.source_info.name_stack)
    return stack.partition("/")[2] if stack else outer  # without the name of the network


def _constant(array: np.ndarray, shape: Sequence[Any] | None = None) -> _Variable:
    return _Variable(tuple(array.shape if shape is None else shape), array=array)


def _computed(equation: Any, inputs: list[_Variable]) -> list[_Variable]:
    arrays = [np.broadcast_to(np.asarray(x.array), x.shape) for x in inputs]
    try:
        results = equation.primitive.bind(*arrays, **equation.params)
    except Exception as error:  # JAX raises several kinds
        raise UntranslatableError(f"{equation.primitive} depends on the size of the image") from error
    results = results if equation.primitive.multiple_results else [results]
    return [_constant(np.asarray(result)) for result in results]


def _is_zero(x: _Variable) -> bool:
    return x.array is not None and x.array.size == 1 and x.array.item() == 0


def _is_mean(inputs: list[_Variable]) -> bool:
    total, count = inputs
    if total.summed is None or count.dimension is None:
        return False
    source, axes = total.summed
    return math.prod([source.shape[axis] for axis in axes]) == count.dimension


# (translation, inputs, shape of the first output, parameters and dtype of that output) → output, or list of outputs.
_Rule = Callable[[Translation, list[_Variable], tuple[Any, ...], dict[str, Any]], _Variable | list[_Variable]]
_RULES: dict[str, _Rule] = {}


def _rule(name: str) -> Callable[[_Rule], _Rule]:
    def register(rule: _Rule) -> _Rule:
        _RULES[name] = rule
        return rule

    return register


@_rule("conv_general_dilated")
def _convolution(graph: Translation, inputs: list[_Variable], shape: tuple, params: dict) -> _Variable:
    x, kernel = inputs
    layout = params["dimension_numbers"]
    if kernel.array is None or params["batch_group_count"] != 1:
        raise UntranslatableError("a convolution with a computed kernel has no translation")
    weight = np.broadcast_to(kernel.array, kernel.shape).transpose(layout.rhs_spec)
    name, sizes = graph.complete(x, layout.lhs_spec), weight.shape[2:]
    padding = [tuple(map(int, pair)) for pair in params["padding"]]
    strides = params["lhs_dilation"]
    if max(strides) == 1:
        result = graph.add(
            "Conv",
            [name, graph.store(weight, "weight")],
            kernel_shape=list(sizes),
            strides=list(params["window_strides"]),
            pads=[pair[0] for pair in padding] + [pair[1] for pair in padding],
            dilations=list(params["rhs_dilation"]),
            group=params["feature_group_count"],
        )
        return _Variable(shape, name=result, order=tuple(layout.out_spec))
    if max(params["window_strides"]) > 1 or max(params["rhs_dilation"]) > 1 or params["feature_group_count"] > 1:
        raise UntranslatableError("a transposed convolution with other strides or groups has no translation")
    # Padding of the dilated input is the kernel's overlap less the crop; what is negative is more output.
    before = [size - 1 - pair[0] for size, pair in zip(sizes, padding, strict=True)]
    after = [size - 1 - pair[1] for size, pair in zip(sizes, padding, strict=True)]
    result = graph.add(
        "ConvTranspose",
        [name, graph.store(weight.swapaxes(0, 1)[..., ::-1, ::-1], "weight")],
        kernel_shape=list(sizes),
        strides=list(strides),
        pads=before + [max(0, crop) for crop in after],
        output_padding=[max(0, -crop) for crop in after],
    )
    return _Variable(shape, name=result, order=tuple(layout.out_spec))


@_rule("dot_general")
def _matrix_product(graph: Translation, inputs: list[_Variable], shape: tuple, params: dict) -> _Variable:
    x, matrix = inputs
    (contracted, rows), batch = params["dimension_numbers"]
    rank = len(x.shape)
    plain = batch == ((), ()) and tuple(contracted) == (rank - 1,) and len(matrix.shape) == 2
    if matrix.array is None or not plain:
        raise UntranslatableError("a product of this kind has no translation")
    weight = np.broadcast_to(matrix.array, matrix.shape)
    weight = weight if rows[0] == 0 else weight.T
    if rank != 4:
        name = graph.add("MatMul", [graph.complete(x, range(rank)), graph.store(weight, "weight")])
        return _Variable(shape, name=name, order=tuple(range(rank)))
    order = (0, 3, 1, 2)
    stored = graph.store(weight.T[..., None, None], "weight")
    name = graph.add("Conv", [graph.complete(x, order), stored], kernel_shape=[1, 1])
    return _Variable(shape, name=name, order=order)


@_rule("broadcast_in_dim")
def _broadcast(graph: Translation, inputs: list[_Variable], shape: tuple, params: dict) -> _Variable:
    x, axes = inputs[0], tuple(params["broadcast_dimensions"])
    if x.array is not None:
        lengths = [1] * len(shape)
        for axis, length in zip(axes, x.array.shape, strict=True):
            lengths[axis] = length
        return _constant(x.array.reshape(lengths), shape)
    order = _channels_first(len(shape))
    x = graph.arranged(x, sorted(range(len(axes)), key=lambda axis: order.index(axes[axis])))
    added = [position for position, axis in enumerate(order) if axis not in axes]
    name = x.name
    if added:
        name = graph.add("Unsqueeze", [name, graph.store(np.array(added, np.int64), "axes")])
    kept = {axes[axis] for axis in range(len(axes)) if axis not in x.narrow and x.shape[axis] == shape[axes[axis]]}
    narrow = frozenset(axis for axis in range(len(shape)) if axis not in kept and shape[axis] != 1)
    kept_dimensions = inputs[0].summed if all(shape[order[position]] == 1 for position in added) else None
    return _Variable(shape, name=name, order=order, narrow=narrow, dimension=x.dimension, summed=kept_dimensions)


@_rule("squeeze")
@_rule("reshape")
def _reshape(graph: Translation, inputs: list[_Variable], shape: tuple, params: dict) -> _Variable:
    (x,) = inputs
    if x.shape == shape:
        return x
    order = tuple(range(len(shape)))
    # By default, ONNX takes a length of 0 for "as before".
    zero = {"allowzero": 1} if 0 in shape else {}
    name = graph.add("Reshape", [graph.complete(x, range(len(x.shape))), graph.lengths(shape)], **zero)
    return _Variable(shape, name=name, order=order)


@_rule("transpose")
def _transpose(graph: Translation, inputs: list[_Variable], shape: tuple, params: dict) -> _Variable:
    (x,), permutation = inputs, list(params["permutation"])
    order = tuple(permutation.index(axis) for axis in x.order)
    return _Variable(shape, name=x.name, order=order, narrow=frozenset(permutation.index(axis) for axis in x.narrow))


@_rule("concatenate")
def _concatenate(graph: Translation, inputs: list[_Variable], shape: tuple, params: dict) -> _Variable:
    # `jnp.pad` adds parts without any values.
    inputs = [x for x in inputs if 0 not in x.shape] or inputs
    if len(inputs) == 1:
        return inputs[0]
    order = next(x.order for x in inputs if x.array is None)
    names = [graph.complete(x, order) for x in inputs]
    return _Variable(shape, name=graph.add("Concat", names, axis=order.index(params["dimension"])), order=order)


@_rule("split")
def _split(graph: Translation, inputs: list[_Variable], shape: tuple, params: dict) -> list[_Variable]:
    (x,), sizes, axis = inputs, params["sizes"], params["axis"]
    if len(sizes) == 1:
        return [x]
    stored = graph.store(np.array(sizes, np.int64), "sizes")
    names = graph.add_all("Split", [graph.complete(x), stored], len(sizes), axis=x.order.index(axis))
    shapes = [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]
    return [_Variable(part, name=name, order=x.order) for part, name in zip(shapes, names, strict=True)]


@_rule("slice")
def _slice(graph: Translation, inputs: list[_Variable], shape: tuple, params: dict) -> _Variable:
    (x,) = inputs
    starts, ends = params["start_indices"], params["limit_indices"]
    strides = params["strides"] or (1,) * len(starts)
    cut = [a for a, n in enumerate(x.shape) if (starts[a], strides[a]) != (0, 1) or ends[a] != n]
    if not cut:
        return x
    axes = graph.store(np.array([x.order.index(axis) for axis in cut], np.int64), "axes")
    steps = graph.store(np.array([strides[axis] for axis in cut], np.int64), "steps")
    limits = [graph.lengths([values[axis] for axis in cut]) for values in (starts, ends)]
    name = graph.add("Slice", [graph.complete(x), *limits, axes, steps])
    return _Variable(shape, name=name, order=x.order)


@_rule("pad")
def _pad(graph: Translation, inputs: list[_Variable], shape: tuple, params: dict) -> _Variable:
    x, value = inputs
    config = params["padding_config"]
    if value.array is None or any(min(low, high) < 0 or inner for low, high, inner in config):
        raise UntranslatableError("padding of this kind has no translation")
    pads = [config[axis][side] for side in (0, 1) for axis in x.order]
    stored = [graph.store(np.array(pads, np.int64), "pads"), graph.store(value.array)]
    return _Variable(shape, name=graph.add("Pad", [graph.complete(x), *stored]), order=x.order)


@_rule("reduce_sum")
def _sum(graph: Translation, inputs: list[_Variable], shape: tuple, params: dict) -> _Variable:
    axes = tuple(params["axes"])
    return dataclasses.replace(graph.reduced("ReduceSum", inputs[0], axes, shape), summed=(inputs[0], axes))


@_rule("reduce_window_max")
def _max_pool(graph: Translation, inputs: list[_Variable], shape: tuple, params: dict) -> _Variable:
    (x,), order = inputs, (0, 3, 1, 2)
    window, strides, dilation = (
        [params[key][axis] for axis in order] for key in ("window_dimensions", "window_strides", "window_dilation")
    )
    if window[:2] != [1, 1] or any(map(any, params["padding"])) or {*params["base_dilation"]} != {1}:
        raise UntranslatableError("pooling of this kind has no translation")
    options = {"kernel_shape": window[2:], "strides": strides[2:], "dilations": dilation[2:]}
    return _Variable(shape, name=graph.add("MaxPool", [graph.complete(x, order)], **options), order=order)


@_rule("select_n")
def _select(graph: Translation, inputs: list[_Variable], shape: tuple, params: dict) -> _Variable:
    condition, if_false, if_true = inputs
    if any(x.array is not None for x in inputs):
        raise UntranslatableError("a selection of constants has no translation")
    names = [graph.complete(x, if_true.order) for x in (condition, if_true, if_false)]
    return _Variable(shape, name=graph.add("Where", names), order=if_true.order)


@_rule("logistic")
def _sigmoid(graph: Translation, inputs: list[_Variable], shape: tuple, params: dict) -> _Variable:
    x = graph.arranged(inputs[0])
    if len(shape) != 4 or shape[1] == shape[2] == 1:
        return dataclasses.replace(x, name=graph.add("Sigmoid", [x.name]), summed=None)
    # Attention to pixels. ONNX Runtime computes `Sigmoid` with an error of 1e-7, too much for values near 0 that PAN
    # multiplies by large ones: 0.03 levels in the result. `Exp` is precise.
    one = graph.store(np.array(1, params["dtype"]))
    power = graph.add("Exp", [graph.add("Neg", [x.name])])
    return dataclasses.replace(x, name=graph.add("Div", [one, graph.add("Add", [power, one])]), summed=None)


@_rule("square")
def _square(graph: Translation, inputs: list[_Variable], shape: tuple, params: dict) -> _Variable:
    x = graph.arranged(inputs[0])
    return dataclasses.replace(x, name=graph.add("Mul", [x.name, x.name]), summed=None, dimension=None)


@_rule("convert_element_type")
def _convert(graph: Translation, inputs: list[_Variable], shape: tuple, params: dict) -> _Variable:
    import onnx.helper  # an optional package

    (x,), dtype = inputs, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(params["new_dtype"]))
    return dataclasses.replace(x, name=graph.add("Cast", [x.name], to=dtype), summed=None)


@_rule("dim_as_value")
def _dimension(graph: Translation, inputs: list[_Variable], shape: tuple, params: dict) -> _Variable:
    dimension = params["dim"]
    axes = graph.store(np.array([0], np.int64), "axes")
    name = graph.add("Squeeze", [graph._length(str(dimension)), axes])
    return _Variable((), name=name, dimension=dimension)
