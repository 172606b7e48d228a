"""What upscaling costs on a device that need not exist: compiles the tile programs for it."""

import collections
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from a2f_jax.hardware import OutOfMemory, ProgramCosts, Target, compile_costs, compile_only_devices
from a2f_jax.models.a2f import A2F, Params
from a2f_jax.models.convolution import prefers_winograd
from a2f_jax.models.counts import multiply_adds
from a2f_jax.upscaling.plan import rounded_side, workers
from a2f_jax.upscaling.programs import BLOCK_HALO, STATES_AT_ONCE, programs_of

_LARGEST = 4096
SMALLEST_SIDE = 64
"""Side in pixels of the smallest tile that `largest_tile` tries."""


@dataclasses.dataclass(frozen=True)
class TileCosts:
    """What upscaling one tile costs.

    Attributes:
      target: the device that the programs were compiled for.
      side: side of the tile in input pixels.
      runs: for each program, how often it runs for one tile.
      flops: floating-point operations of the convolutions and matrix products of one tile.
      programs: the costs of each program.
    """

    target: Target
    side: int
    runs: dict[str, int]
    flops: int
    programs: dict[str, ProgramCosts]

    @property
    def peak_memory(self) -> int:
        """Bytes that the tiles which are computed concurrently need; the states of the image are not included."""
        most = max(costs.peak_memory for costs in self.programs.values())
        return workers(self.target.accelerator.platform) * most

    @property
    def fits(self) -> bool:
        """Whether the device has enough memory."""
        usable = self.target.accelerator.usable_memory
        return usable is None or self.peak_memory <= usable

    @property
    def traffic(self) -> int:
        """Bytes read from and written to the main memory of the device for one tile."""
        return sum(self.runs[name] * costs.traffic for name, costs in self.programs.items())

    @property
    def cycles(self) -> int | None:
        """The compiler's estimate of the clock cycles for one tile, or None if it gives none."""
        if any(costs.cycles is None for costs in self.programs.values()):
            return None
        return sum(self.runs[name] * (costs.cycles or 0) for name, costs in self.programs.items())


def tile_costs(network: A2F, folded: Params, target: Target, side: int) -> TileCosts:
    """Compiles the tile programs of a network for one device. No tile is computed.

    Args:
      network: a network without weight normalization and without depthwise projections.
      folded: its parameters, as returned by `fold_weight_norm`.
      target: the device; if it is several, the first.
      side: side of the tiles in input pixels, rounded up to a multiple of 8.

    Raises:
      OutOfMemory: the compiler has refused a program because of its memory.
      UserError: the compiler for this device is not installed.
      ValueError: the network has depthwise projections.
    """
    side = rounded_side(side)
    device = compile_only_devices(target)[0]
    platform = target.accelerator.platform
    network = network.clone(winograd=prefers_winograd(platform, network.dtype))
    sharding = SingleDeviceSharding(device)

    def abstract(tree: Any, _: Any = None) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=sharding), tree)

    def array(*shape: int, dtype: Any = network.dtype) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    programs = programs_of(network, folded, device, put=abstract)
    n = network.features
    frame = array(4, dtype=jnp.int32)
    pixels = array(side + 2 * programs.halo, side + 2 * programs.halo, 3, dtype=jnp.float32)
    tile, padded = array(side, side, n), array(side + 2 * BLOCK_HALO, side + 2 * BLOCK_HALO, n)
    calls: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "head": (programs.head, (pixels, frame)),
        "surround": (programs.surround, ([[tile] * 3] * 3,)),
        "residual": (programs.residual[0], (padded, frame)),
        "tail": (programs.tail["uint8"], (padded, pixels, frame)),
    }
    runs = collections.Counter({"head": 1, "surround": network.blocks + 1, "residual": network.blocks, "tail": 1})
    for index in range(network.blocks):
        states = index + 1 + -(index + 1) % STATES_AT_ONCE
        name = f"mix of {states} states"
        calls[name] = programs.mix, (array(states * n, n), tile, [tile] * states, frame)
        runs[name] += 1
    flops, costs = 0, {}
    for name, (program, arguments) in calls.items():
        bound = getattr(program, "args", ())  # the weights of a partial function
        jitted = getattr(program, "func", program)
        costs[name] = compile_costs(jitted, *bound, *arguments)
        flops += runs[name] * 2 * multiply_adds(jitted.trace(*bound, *arguments).jaxpr.jaxpr)
    return TileCosts(target, side, dict(runs), flops, costs)


def largest_tile(network: A2F, folded: Params, target: Target) -> TileCosts:
    """Returns the costs of the largest tile, a power of two of at most 4096 pixels, for which the memory suffices.

    Args:
      network: a network without weight normalization and without depthwise projections.
      folded: its parameters, as returned by `fold_weight_norm`.
      target: the device; if it is several, the first.

    Raises:
      OutOfMemory: not even a tile of 64 pixels fits.
      UserError: the compiler for this device is not installed.
      ValueError: the network has depthwise projections.
    """
    side = _LARGEST
    while True:
        try:
            costs = tile_costs(network, folded, target, side)
            if costs.fits or side == SMALLEST_SIDE:
                return costs
        except OutOfMemory:
            if side == SMALLEST_SIDE:
                raise
        side //= 2
