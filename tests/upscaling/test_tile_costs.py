"""The tile programs compiled for devices that are not there."""

import jax
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from a2f_jax.hardware import OutOfMemory, compile_costs, compile_only_devices, parse_target
from a2f_jax.models.a2f import A2F, fold_weight_norm
from a2f_jax.upscaling import tile_costs as module
from a2f_jax.upscaling.plan import canvas_bytes
from a2f_jax.upscaling.programs import STATES_AT_ONCE, TILES_AT_ONCE, programs_of
from a2f_jax.upscaling.tile_costs import largest_tile, tile_costs


@pytest.fixture(scope="module")
def model(random_params):
    network = A2F(scale=2, features=8, blocks=2)
    return network.clone(weight_norm=False), fold_weight_norm(random_params(network))


@pytest.mark.parametrize("devices", ["v5e", "h100"])
def test_a_tile_takes_the_arithmetic_of_its_convolutions_and_products(model, devices):
    side, n = 32, 8
    costs = tile_costs(*model, parse_target(devices), side)
    hidden = (side + 2) ** 2 * 9 * n * 128 + side**2 * 9 * 128 * n
    mix = side**2 * 4 * n * n  # four states, padded with zeros
    ends = side**2 * 9 * (3 * n + n * 12 + 3 * 12)
    assert costs.flops == 2 * (2 * hidden + 2 * mix + ends)
    assert costs.runs == {"head": 1, "surround": 3, "residual": 2, "tail": 1, "mix of 4 states": 2}
    assert costs.fits
    assert costs.traffic > side**2 * n * 4
    assert (costs.cycles is not None) == (devices == "v5e")
    assert all(not p.collectives and not p.host_transfers for p in costs.programs.values())


@pytest.mark.parametrize("devices", ["v5e", "h100"])
def test_what_an_accelerator_computes_between_blocks_is_compiled_for_it(model, devices):
    (device, *_) = compile_only_devices(parse_target(devices))
    place = SingleDeviceSharding(device)

    def abstract(tree, _=None):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=place), tree)

    programs, sums = programs_of(*model, device, put=abstract), abstract(np.zeros(8, np.float32))
    total = compile_costs(programs.total, [sums] * TILES_AT_ONCE)
    program = programs.mix_weights_on_device[1]
    weights = compile_costs(program.func, *program.args, [sums] * STATES_AT_ONCE, abstract(np.float32(0)))
    assert not total.host_transfers and not weights.host_transfers
    assert weights.peak_memory > STATES_AT_ONCE * 8 * 8 * 4


def test_a_program_for_whole_images_takes_less_memory_than_planned(model):
    """A GPU of 80 GB may compute images of 2048×2048 pixels."""
    (device,) = compile_only_devices(parse_target("h100"))
    place = SingleDeviceSharding(device)

    def abstract(tree, _=None):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=place), tree)

    program = programs_of(*model, device, put=abstract).whole["uint8"]
    arguments = abstract((np.zeros((192, 384, 3), np.uint8), np.zeros(4, np.int32)))
    costs = compile_costs(program.func, *program.args, *arguments)
    assert not costs.host_transfers
    assert 0.5 < costs.peak_memory / canvas_bytes(model[0], 192, 384) < 1


def test_a_cpu_takes_less_arithmetic_because_of_winograd(model):
    on_cpu, on_gpu = (tile_costs(*model, parse_target(devices), 32) for devices in ("cpu:2", "h100"))
    assert 0.5 * on_gpu.flops < on_cpu.flops < 0.6 * on_gpu.flops  # half, and a little more for whole blocks
    assert on_cpu.runs == on_gpu.runs


def test_the_largest_tile_is_the_first_power_of_two_that_fits(monkeypatch):
    tried = []

    class Costs:
        def __init__(self, network, folded, target, side):
            tried.append(side)
            self.side, self.fits = side, side <= 256
            if side > 1024:
                raise OutOfMemory("too large")

    monkeypatch.setattr(module, "tile_costs", Costs)
    assert largest_tile(None, None, parse_target("v5e")).side == 256
    assert tried == [4096, 2048, 1024, 512, 256]


def test_a_network_with_depthwise_projections_is_an_error(random_params):
    network = A2F(scale=2, features=8, blocks=1, depthwise=True)
    folded = fold_weight_norm(random_params(network))
    with pytest.raises(ValueError, match="depthwise"):
        tile_costs(network.clone(weight_norm=False), folded, parse_target("cpu"), 32)


def test_the_side_is_rounded_as_for_upscaling(model):
    assert tile_costs(*model, parse_target("cpu"), 20).side == 24
