"""Finds pixel shuffles in programs of JAX, for which ONNX has an operation of its own."""

from typing import Any

from jax.extend.core import Literal


def find_pixel_shuffles(jaxpr: Any) -> dict[int, tuple[Any, int, str] | None]:
    """Finds reshapes and transpositions that move channels to sub-pixels.

    Args:
      jaxpr: the program, which is only searched at its top level.

    Returns:
      By the index of an equation, the last of the equations, the factor, and the mode of `DepthToSpace`; or None if the
      equation is another one of a pixel shuffle.
    """
    uses: dict[Any, list[int]] = {}
    for index, equation in enumerate(jaxpr.eqns):
        for variable in equation.invars:
            if not isinstance(variable, Literal):
                uses.setdefault(variable, []).append(index)
    for variable in jaxpr.outvars:
        uses.setdefault(variable, []).append(-1)

    def follower(index: int, name: str) -> int | None:
        after = uses.get(jaxpr.eqns[index].outvars[0], [])
        found = len(after) == 1 and after[0] >= 0 and jaxpr.eqns[after[0]].primitive.name == name
        return after[0] if found else None

    def reshapes(index: int | None) -> list[int]:
        # Axes may be split and merged one at a time.
        found: list[int] = []
        while index is not None:
            found.append(index)
            index = follower(index, "reshape")
        return found

    def shape_after(index: int) -> tuple[Any, ...]:
        return jaxpr.eqns[index].outvars[0].aval.shape

    shuffles: dict[int, tuple[Any, int, str] | None] = {}
    for first, equation in enumerate(jaxpr.eqns):
        if equation.primitive.name != "reshape" or len(equation.invars[0].aval.shape) != 4 or first in shuffles:
            continue
        *_, last_split = splits = reshapes(first)
        transposition = follower(last_split, "transpose")
        if transposition is None or len(split := shape_after(last_split)) != 6:
            continue
        n, height, width, channels = equation.invars[0].aval.shape
        for mode, place, permutation in (("CRD", 4, (0, 1, 4, 2, 5, 3)), ("DCR", 3, (0, 1, 3, 2, 4, 5))):
            scale = split[place]
            small = (channels // scale**2,)
            factors = (*small, scale, scale) if mode == "CRD" else (scale, scale, *small)
            if jaxpr.eqns[transposition].params["permutation"] != permutation or split[3:] != factors:
                continue
            merges = reshapes(follower(transposition, "reshape"))
            merged = (n, scale * height, scale * width, *small)
            last = next((i for i, index in enumerate(merges) if shape_after(index) == merged), None)
            if split[:3] == (n, height, width) and last is not None:
                shuffles |= dict.fromkeys([*splits, transposition, *merges[: last + 1]])
                shuffles[first] = (jaxpr.eqns[merges[last]], scale, mode)
    return shuffles
