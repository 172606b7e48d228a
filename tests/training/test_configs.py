"""Every config of the repository trains, with a tiny network."""

import jax
import jax.numpy as jnp
import pytest

from a2f_jax.configs import a2f, ablation, finetune, sample
from a2f_jax.model import load
from a2f_jax.models.a2f import ABLATIONS
from a2f_jax.training.loop import train
from a2f_jax.training.settings import make_network
from a2f_jax.weights.training_run import read_checkpoint

PAPER = [f"{size}_x{scale}" for size in ("s", "sd", "m", "l") for scale in (2, 3, 4)]
CONFIGS = {
    **{f"a2f:{run}": lambda run=run: a2f.get_config(run) for run in [*PAPER, "sd_x4,recipe=long"]},
    **{f"ablation:{run}": lambda run=run: ablation.get_config(run) for run in [*ABLATIONS, "head1", "head5", "head7"]},
    "finetune:sd_x4": finetune.get_config,
    "sample": sample.get_config,
}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_trains(name, data_dir, tmp_path):
    config = CONFIGS[name]()
    config.steps, config.optimizer.warmup = 2, 1
    config.batch_size = 8
    config.data.name, config.data.dir, config.data.patch_size = "tiny", str(data_dir), 8
    config.init, config.model.features, config.model.blocks = "", 8, 1
    train(config, tmp_path)
    params, about = read_checkpoint(tmp_path)
    assert about["step"] == "2"
    assert ("projection" in params["block_00"]) == config.model.auxiliary


def test_fine_tuning_starts_from_all_of_the_shipped_weights():
    config = finetune.get_config("sd_x4")
    network, weights = make_network(config, "cpu"), load(config.init).params
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    assert jax.tree.map(jnp.shape, weights) == jax.tree.map(jnp.shape, params)
