"""The training step compiled for TPUs and GPUs that are not there."""

import jax
import pytest

from a2f_jax.configs import a2f, ablation
from a2f_jax.errors import UserError
from a2f_jax.hardware import OutOfMemory, parse_target
from a2f_jax.models.counts import count
from a2f_jax.training.settings import make_network
from a2f_jax.training.step_costs import step_costs, ways_to_fit, with_even_batch


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """The programs are those that would run: with all optimizations."""


def tiny(changes, run="sd_x2"):
    config = ablation.get_config(run) if run != "sd_x2" else a2f.get_config(run)
    with config.unlocked():
        config.model.features, config.model.blocks = 8, 1
    config.data.patch_size, config.data.name = 8, "missing"
    config.update_from_flattened_dict(changes)
    return config


PHOTO = {"data.degradation": "photo", "data.sampling": "area", "data.permute_channels": True}


@pytest.mark.parametrize(
    ("devices", "run", "changes"),
    [
        ("v5e:16x16", "sd_x2", {"batch_size": 256}),
        ("v4:2x2x1", "sd_x2", {"ema_decay": 0.9}),
        ("v5e:2x2", "sd_x2", {"spmd": "pmap", "model.dtype": "bfloat16", "model.head_kernel": 5}),
        (
            "v5e:2x2",
            "sd_x2",
            {"data.placement": "device", "steps_per_dispatch": 3, "model.head_kernel": 7} | PHOTO,
        ),
        ("v5e:2x2", "sd_x2", {"model.remat": True, "accumulate": 2, "model.head_kernel": 1}),
        ("v6e:2x2", "baseline", {"optimizer.name": "muon"}),
        ("v5e:2x2", "noca", {}),
        ("v5e:2x2", "noca_mp", {"data.placement": "device", "spmd": "pmap", "steps_per_dispatch": 2}),
        ("h100:8", "sd_x2", {"data.placement": "device", "data.degradation": "photo", "steps_per_dispatch": 3}),
        ("h100:4x8", "sd_x2", {"spmd": "pmap", "batch_size": 64, "accumulate": 2}),
    ],
)
def test_an_update_has_one_fused_all_reduce_and_no_host_transfer(devices, run, changes):
    config = tiny(changes, run)
    costs = step_costs(config, parse_target(devices))
    assert costs.updates == config.steps_per_dispatch
    (all_reduce,) = costs.program.collectives.values()
    assert list(costs.program.collectives) == ["all-reduce"]
    assert all_reduce.times == costs.updates
    # The gradients and the loss; on a TPU, small arrays are padded to whole tiles.
    exact = costs.updates * (costs.parameters + 4)
    if devices.startswith("h100"):
        # The biases of tail and skip have the same gradient, which XLA may reduce once.
        same = costs.updates * 4 * 3 * config.model.scale**2
        assert all_reduce.bytes in (exact, exact - same)
    else:
        assert exact < all_reduce.bytes < 4 * exact
    assert costs.program.host_transfers == 0
    assert costs.program.fits(costs.target.accelerator)
    assert costs.program.aliased >= costs.parameters + costs.optimizer + costs.ema  # the state is updated in place


def test_images_that_are_not_prepared_are_assumed_to_be_those_of_div2k():
    costs = step_costs(tiny({"data.placement": "device"}), parse_target("h100"))
    assert costs.assumed_images
    assert costs.images == pytest.approx(6.8e9 * (1 + 1 / 4), rel=0.05)  # HR, as docs/training.md says, and LR ×2
    assert costs.program.arguments > costs.images
    assert costs.program.traffic < 1e9  # patches are read, not the images


def test_arithmetic_is_that_of_forward_and_backward_pass():
    config = tiny({"batch_size": 16})
    costs = step_costs(config, parse_target("h100:2"))
    size = config.data.patch_size
    network = make_network(config, "gpu")
    forward = count(network, (2 * size, 2 * size)).multiply_adds
    # Both gradients of each layer, except that of the image with respect to the head and the skip connection.
    first = size**2 * 9 * 3 * (8 + 3 * 4)
    assert costs.flops == 2 * 8 * (3 * forward - first)


@pytest.mark.parametrize(
    ("memory", "ways"),
    [
        # A step needs 100 bytes per patch that is computed at once, 50 in bfloat16, 80 with remat, 40 with both.
        (1700, [{"model.dtype": "bfloat16"}, {"accumulate": 2}, {"batch_size": 16}]),
        (2600, [{"model.remat": True}, {"model.dtype": "bfloat16"}, {"accumulate": 2}, {"batch_size": 16}]),
        (60, [{"model.remat": True, "model.dtype": "bfloat16", "accumulate": 32}]),
        (10, []),
    ],
)
def test_changes_that_make_the_step_fit_are_those_that_were_tried_with_success(monkeypatch, memory, ways):
    class Costs:
        def __init__(self, config, target):
            per_patch = 100 * (0.5 if config.model.dtype == "bfloat16" else 1) * (0.8 if config.model.remat else 1)
            self.needed = per_patch * config.batch_size / config.accumulate
            self.program = self
            if self.needed > 3000:
                raise OutOfMemory("needs more")

        def fits(self, accelerator):
            return self.needed <= accelerator.memory

    monkeypatch.setattr("a2f_jax.training.step_costs.step_costs", Costs)
    target = parse_target("cpu")
    target = target._replace(accelerator=target.accelerator._replace(memory=memory))
    tried = []
    assert list(ways_to_fit(tiny({"batch_size": 32}), target, tried.append)) == ways
    assert tried[0] == "--config.model.remat=True"


def test_an_uneven_batch_is_an_error_as_in_training_and_can_be_rounded_up():
    config = tiny({"batch_size": 10})
    with pytest.raises(UserError, match=r"batch_size=10 cannot be split evenly among 8 devices"):
        step_costs(config, parse_target("h100:8"))
    assert with_even_batch(config, 8).batch_size == 16
    assert with_even_batch(config, 5).batch_size == 10


def test_the_local_cpu_can_be_compiled_for_with_its_own_algorithm():
    costs = step_costs(tiny({"batch_size": 8}), parse_target("cpu:8"))
    assert costs.program.collectives["all-reduce"].times == 1
    assert costs.program.traffic == pytest.approx(costs.program.bytes_accessed, rel=0.05)
    assert not jax.config.values["jax_disable_most_optimizations"]
