"""Reads what XLA compiled: the text of an optimized, scheduled program.

A program is a set of computations, each a list of instructions such as

    %fusion.7 = bf16[4,48,48,128]{2,3,1,0:T(8,128)(2,1)S(1)} fusion(%a, %b), calls=%fused_computation.7, ...

A shape ends with its layout: the order of the dimensions, the tiles that they are padded to, and the memory space,
where no S means the device's main memory. On a TPU, space 1 is the vector memory on the chip. Space 5 is the host's
memory.
"""

import collections
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
_BYTES |= {"s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16}
_MAIN, _HOST = 0, 5

_ARRAY = re.compile(r"\b([a-z]+\d+|pred)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
_COMPUTATION = re.compile(r"(ENTRY )?%(\S+) \(.*\{")
_INSTRUCTION = re.compile(r"  (?:ROOT )?%(\S+) = (.*?) ([a-z][\w-]*)\((.*)")

_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# These move nothing: they name, group or wait for values.
_NO_TRAFFIC = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id"}
_NO_TRAFFIC |= {"while", "call", "conditional", "async-start", "async-update"}  # what they run is counted
_SLICES = {"slice", "dynamic-slice", "gather"}


class Array(NamedTuple):
    """One array of a shape.

    Attributes:
      bytes: its size in memory, including the padding of its tiles.
      space: the memory that it is in, 0 for the device's main memory.
    """

    bytes: int
    space: int


class Instruction(NamedTuple):
    """One instruction of a computation.

    Attributes:
      opcode: such as `"fusion"` or `"all-reduce"`.
      shape: the text of its shape.
      arguments: the text between its parentheses.
      attributes: the text after them.
    """

    opcode: str
    shape: str
    arguments: str
    attributes: str

    @property
    def operands(self) -> list[str]:
        """The names of the instructions that it reads."""
        return re.findall(r"%([^\s,()]+)", self.arguments)

    def attribute(self, pattern: str) -> str | None:
        """Returns the first group of the first match of a pattern in the attributes."""
        match = re.search(pattern, self.attributes)
        return match[1] if match else None


Computation = dict[str, Instruction]


class Collective(NamedTuple):
    """Communication between devices of one kind.

    Attributes:
      times: how often it happens.
      bytes: the total size of what each device contributes.
    """

    times: int
    bytes: int


class Summary(NamedTuple):
    """What one execution of a program does on one device, with the bodies of loops counted as often as they run.

    Attributes:
      collectives: by opcode, such as `"all-reduce"`.
      host_transfers: the number of transfers from or to the host, and of calls into it.
      traffic: bytes read from and written to the device's main memory, as the sum over the operands and results of all
        instructions. Caches are not taken into account, but values that the compiler keeps on the chip are.
      cycles: the sum of the compiler's estimates for all instructions, or None if it gives none.
    """

    collectives: dict[str, Collective]
    host_transfers: int
    traffic: int
    cycles: int | None


def arrays(shape: str) -> list[Array]:
    """Returns the arrays of a shape, which may be a tuple."""
    result = []
    for kind, sides, order, layout in _ARRAY.findall(shape):
        if kind not in _BYTES:
            continue
        padded = [int(side) for side in sides.split(",") if side]
        tile = re.match(r"T\(([\d,]+)\)", layout)
        if tile and padded:
            minor_first = [int(axis) for axis in order.split(",")]
            for side, axis in zip(reversed(tile[1].split(",")), minor_first, strict=False):
                padded[axis] = -(-padded[axis] // int(side)) * int(side)
        space = re.search(r"S\((\d+)\)", layout)
        result.append(Array(math.prod(padded) * _BYTES[kind], int(space[1]) if space else _MAIN))
    return result


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """Parses the text of a program.

    Args:
      text: as returned by `jax.stages.Compiled.as_text`.

    Returns:
      Its computations by name, and the name of the one that runs first.
    """
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            current = computations.setdefault(match[2], {})
            entry = match[2] if match[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (match := _INSTRUCTION.match(re.sub(r"/\*.*?\*/", "", line))):
            name, shape, opcode, rest = match.groups()
            arguments, _, attributes = rest.partition(")")
            current[name] = Instruction(opcode, shape, arguments, attributes)
    return computations, entry


def _trip_count(loop: Instruction, computations: dict[str, Computation]) -> int:
    if known := loop.attribute(r'"known_trip_count":\{"n":"(\d+)"'):
        return int(known)
    # The compiler for TPUs does not state it. The condition of a scan compares the counter with the length.
    condition = computations.get(loop.attribute(r"\bcondition=%([^\s,]+)") or "", {})
    limits = [i.arguments for i in condition.values() if i.opcode == "constant" and i.arguments.isdecimal()]
    counts_up = any(i.opcode == "compare" and "direction=LT" in i.attributes for i in condition.values())
    return int(limits[0]) if counts_up and len(limits) == 1 else 1


def _executed(computations: dict[str, Computation], name: str, times: int = 1) -> Iterator[tuple[Computation, int]]:
    # Computations and how often each runs. What is inside a fusion is part of one instruction.
    computation = computations[name]
    yield computation, times
    for instruction in computation.values():
        repeats = 1
        if instruction.opcode == "while":
            repeats = _trip_count(instruction, computations)
            called = re.findall(r"\b(?:body|condition)=%([^\s,]+)", instruction.attributes)
        elif instruction.opcode in ("call", "async-start"):
            called = re.findall(r"\b(?:to_apply|calls)=%([^\s,]+)", instruction.attributes)
        elif instruction.opcode == "conditional":
            listed = instruction.attribute(r"branch_computations=\{([^}]*)\}") or ""
            called = re.findall(r"%([^\s,]+)", listed)
        else:
            continue
        for inner in called:
            yield from _executed(computations, inner, times * repeats)


def _size(instruction: Instruction) -> int:
    return sum(array.bytes for array in arrays(instruction.shape) if array.space == _MAIN)


def _read_by_fusion(operand: Instruction, index: int, fused: Computation) -> int:
    parameters = [name for name, i in fused.items() if i.opcode == "parameter" and i.arguments == str(index)]
    users = [i for i in fused.values() if parameters and parameters[0] in i.operands]
    if users and all(user.opcode in _SLICES for user in users):  # reads only a part, such as patches of the images
        return min(_size(operand), sum(array.bytes for user in users for array in arrays(user.shape)))
    return _size(operand)


def _traffic(instruction: Instruction, computation: Computation, computations: dict[str, Computation]) -> int:
    opcode = instruction.opcode
    if opcode in _NO_TRAFFIC or opcode.endswith("-done"):
        return 0
    if opcode in ("copy-start", "slice-start"):
        # The shape holds source, destination and a counter. What moves is the smaller of the first two.
        ends = arrays(instruction.shape)[:2]
        return min(end.bytes for end in ends) * sum(end.space == _MAIN for end in ends)
    if opcode in _SLICES:
        return 2 * _size(instruction)
    operands = [computation[name] for name in instruction.operands if name in computation]
    fused = computations.get(instruction.attribute(r"\bcalls=%([^\s,]+)") or "", {})
    return _size(instruction) + sum(_read_by_fusion(operand, i, fused) for i, operand in enumerate(operands))


def _is_host_transfer(instruction: Instruction) -> bool:
    if instruction.opcode == "custom-call":
        return "callback" in (instruction.attribute(r'custom_call_target="([^"]*)"') or "")
    if instruction.opcode in ("infeed", "outfeed", "send", "recv"):
        return True
    return instruction.opcode.startswith("copy") and any(a.space == _HOST for a in arrays(instruction.shape))


def summarize(text: str) -> Summary:
    """Summarizes one execution of a program.

    Args:
      text: as returned by `jax.stages.Compiled.as_text`.
    """
    computations, entry = parse(text)
    counts: dict[str, int] = collections.Counter()
    sizes: dict[str, int] = collections.Counter()
    host_transfers, traffic = 0, 0
    cycles = []
    for computation, times in _executed(computations, entry):
        for instruction in computation.values():
            kind = instruction.opcode.removesuffix("-start")
            if kind in _COLLECTIVES:
                contributed = [computation[name] for name in instruction.operands if name in computation]
                counts[kind] += times
                sizes[kind] += times * sum(array.bytes for i in contributed for array in arrays(i.shape))
            host_transfers += times * _is_host_transfer(instruction)
            traffic += times * _traffic(instruction, computation, computations)
            if estimate := instruction.attribute(r'"estimated_cycles":"(\d+)"'):
                cycles.append(times * int(estimate))
    return Summary(
        {kind: Collective(counts[kind], sizes[kind]) for kind in counts},
        host_transfers,
        traffic,
        sum(cycles) if cycles else None,
    )
