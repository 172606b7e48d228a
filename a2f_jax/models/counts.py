"""Counts the parameters and multi-adds of networks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params

from a2f_jax.catalog import SCALES
from a2f_jax.models.a2f import A2F, VARIANTS, build
from a2f_jax.models.layers import INTERPOLATION

PAPER_OUTPUT = (720, 1280)
"""Height and width of the output for which papers report multi-adds."""


def multiply_adds(jaxpr: Any) -> int:
    """Counts the multiply-add operations of the convolutions and matrix products in a traced program.

    Those in the body of a scan count as often as it runs, and those of `interpolate` not at all, as in papers.

    Args:
      jaxpr: a `Jaxpr`, such as `jax.make_jaxpr(f)(x).jaxpr`.
    """
    total = 0
    for equation in jaxpr.eqns:
        if INTERPOLATION in str(equation.source_info.name_stack).split("/"):
            continue
        out = equation.outvars[0].aval.shape if equation.outvars else ()
        if equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            # Only one in stride² of the pixels that a transposed convolution sees is not an inserted zero.
            inserted = int(np.prod(equation.params["lhs_dilation"]))
            total += int(np.prod(out)) * int(np.prod(kernel)) // features // inserted
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += int(np.prod(out)) * int(np.prod([shape[axis] for axis in contracted]))
        for inner in jaxprs_in_params(equation.params):
            total += multiply_adds(inner) * equation.params.get("length", 1)  # of a scan
    return total


class Counts(NamedTuple):
    """The size of a network.

    Attributes:
      parameters: number of trained values, including the gains of weight normalization.
      multiply_adds: number of multiply-add operations to upscale one image.
    """

    parameters: int
    multiply_adds: int


def count(network: Any, output: tuple[int, int] = PAPER_OUTPUT) -> Counts:
    """Counts the parameters and multi-adds of a network.

    Multi-adds are those of the convolutions and matrix products in the traced program. Elementwise operations are not
    counted.

    Args:
      network: a module with the attribute `scale`, such as an `A2F` or one of `a2f_jax.models.registry`.
      output: height and width of the output in pixels; those of the input are `output // scale`.
    """
    height, width = (size // network.scale for size in output)
    if isinstance(network, A2F):
        network = network.clone(winograd=False)  # Winograd's algorithm would need fewer
    lr = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    traced, shapes = jax.make_jaxpr(network.init_with_output, return_shape=True)(jax.random.key(0), lr)
    return Counts(sum(x.size for x in jax.tree.leaves(shapes[1])), multiply_adds(traced.jaxpr))


def overview() -> str:
    """Returns a text table with the size of every variant at every scale."""
    lines = [f"{'variant':8}  {'scale':>5}  {'features':>8}  {'blocks':>6}  {'parameters':>10}  {'multi-adds':>10}"]
    for variant, size in VARIANTS.items():
        for scale in SCALES:
            parameters, multiply_adds = count(build(variant, scale))
            lines.append(
                f"{variant:8}  {f'×{scale}':>5}  {size.features:8}  {size.blocks:6}  "
                f"{parameters:10,}  {f'{multiply_adds / 1e9:.1f} G':>10}"
            )
    height, width = PAPER_OUTPUT
    return "\n".join(
        [*lines, f"Multi-adds of convolutions and matrix products, for an output of {width}×{height} pixels."]
    )
