"""Programs in which a NaN reaches everything that depends on it, also through comparisons and integers.

Floating-point operations pass a NaN on, but `nan > 0` is False like `0 > 0`, and integers have no NaN. Here, booleans
and integers that are made from floats are kept as floats, whose values are the same or NaN.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

# fmt: off
# Operations on each element, of which scalars are the same for all.
_ELEMENTWISE = frozenset({
    "eq", "ne", "lt", "le", "gt", "ge", "is_finite", "and", "or", "xor", "not", "select_n", "clamp", "max", "min",
    "add", "sub", "mul", "div", "rem", "neg", "sign", "abs", "integer_pow", "round", "floor", "ceil",
    "shift_left", "shift_right_arithmetic", "shift_right_logical", "convert_element_type", "copy",
})
# Operations that only move elements.
_MOVES = frozenset({
    "broadcast_in_dim", "reshape", "transpose", "squeeze", "expand_dims", "slice", "dynamic_slice", "concatenate",
    "pad", "rev", "gather",
})
_REDUCTIONS = frozenset({"reduce_sum", "reduce_prod", "reduce_max", "reduce_min", "reduce_and", "reduce_or"})
# fmt: on

CALLS = frozenset({"jit", "closed_call", "custom_jvp_call", "custom_vjp_call", "remat2"})
"""Names of the operations that only call a program, in the supported versions of JAX."""


class UntraceableError(Exception):
    """A program contains an operation through which a NaN cannot be followed."""


def with_surviving_nan(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Returns a function like the given one, whose result is NaN wherever it depends on a NaN in the arguments.

    Raises:
      UntraceableError: when it is called, if it cannot be told whether a NaN would survive.
    """

    def traced(*args: Any) -> jax.Array:
        closed = jax.make_jaxpr(function)(*args)
        (result,) = _run(closed.jaxpr, closed.consts, jax.tree.leaves(args))
        return result

    return traced


def _run(jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    for eqn in jaxpr.eqns:
        results = _apply(eqn, [read(variable) for variable in eqn.invars])
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _apply(eqn: Any, inputs: Sequence[Any]) -> Sequence[Any]:
    name = eqn.primitive.name
    if name in CALLS:
        (called,) = _programs_in(eqn)
        return _run(called.jaxpr, called.consts, inputs)
    kept = [_is_float(x) and not _is_float(variable.aval) for x, variable in zip(inputs, eqn.invars, strict=True)]
    if not any(kept) and not _loses_nan(eqn):
        return _bind(eqn, inputs)
    native = [x.astype(v.aval.dtype) if k else x for x, v, k in zip(inputs, eqn.invars, kept, strict=True)]
    masks = [jnp.isnan(x) if _is_float(x) else jnp.zeros(jnp.shape(x), bool) for x in inputs]
    if name in _ELEMENTWISE:
        missing = functools.reduce(jnp.logical_or, masks)
    elif name in _MOVES:
        # The others are positions, which have to be what they are.
        moved = len(inputs) if name in ("concatenate", "pad") else 1
        if any(kept[moved:]):
            raise UntraceableError(name)
        missing = _bind(eqn, [*(mask.astype(jnp.float32) for mask in masks[:moved]), *inputs[moved:]])[0] > 0
    elif name in _REDUCTIONS:
        missing = masks[0].any(eqn.params["axes"])
    else:
        raise UntraceableError(name)
    (result,) = _bind(eqn, native)
    dtype = result.dtype if _is_float(result) else jnp.float32
    return [jnp.where(missing, jnp.nan, result.astype(dtype))]


def _bind(eqn: Any, inputs: Sequence[Any]) -> Sequence[Any]:
    results = eqn.primitive.bind(*inputs, **eqn.params)
    return results if eqn.primitive.multiple_results else [results]


def _is_float(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)


def _programs_in(eqn: Any) -> list[ClosedJaxpr]:
    leaves = jax.tree.leaves(eqn.params, is_leaf=lambda x: isinstance(x, Jaxpr | ClosedJaxpr))
    found = [x for x in leaves if isinstance(x, Jaxpr | ClosedJaxpr)]
    return [x if isinstance(x, ClosedJaxpr) else ClosedJaxpr(x, []) for x in found]


def _loses_nan(eqn: Any) -> bool:
    # Or the bodies of a loop do, which is run as it is.
    if any(_loses_nan(each) for program in _programs_in(eqn) for each in program.eqns):
        return True
    takes = any(_is_float(variable.aval) for variable in eqn.invars)
    return takes and not all(_is_float(variable.aval) for variable in eqn.outvars)
