"""Every config of the repository trains, with a tiny network."""

import importlib
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2f_jax import cli
from a2f_jax.cli.train import load_config
from a2f_jax.configs import a2f, ablation, finetune, peers, sample
from a2f_jax.model import load, save
from a2f_jax.models import registry
from a2f_jax.models.a2f import ABLATIONS
from a2f_jax.models.registry import PEERS
from a2f_jax.training.loop import train
from a2f_jax.training.settings import make_network
from a2f_jax.weights.training_run import read_checkpoint

# Every variant and every scale; they differ in nothing else.
PAPER = ["s_x2", "sd_x3", "m_x4", "l_x2"]
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


@pytest.mark.parametrize("run", ["srmdnf_x2", "srcnn_x3"], ids=["RGB", "luma"])
def test_other_networks_train_resume_and_load(run, data_dir, tmp_path):
    config = peers.get_config(run)
    config.steps, config.batch_size = 1, 8
    config.data.name, config.data.dir, config.data.patch_size = "tiny", str(data_dir), 8
    train(config, tmp_path / "run")
    before = load(tmp_path / "run")
    config.steps = 2
    train(config, tmp_path / "run")
    model = load(tmp_path / "run")
    assert (f"{model.variant.replace('-', '_')}_x{model.scale}", model.metadata["step"]) == (run, "2")
    first, second = (jax.tree.leaves(m.params) for m in (before, model))
    assert all((a != b).any() for a, b in zip(first, second, strict=True) if a.ndim > 1)
    save(model, tmp_path / "w.safetensors")
    image = np.full((9, 8, 3), 90, np.uint8)
    np.testing.assert_array_equal(load(tmp_path / "w.safetensors").upscale(image), model.upscale(image))


def test_a_new_network_is_the_file_and_the_entry_in_the_documentation(data_dir, tmp_path, monkeypatch):
    page = (pathlib.Path(__file__).parents[2] / "docs/extending.md").read_text()
    file, entry, entry_with_weights = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[:3]
    (tmp_path / "tiny.py").write_text(file)
    monkeypatch.syspath_prepend(tmp_path)
    names = {**vars(registry), "Tiny": importlib.import_module("tiny").Tiny}
    for text in (entry, entry_with_weights):
        monkeypatch.setitem(PEERS, "tiny", eval(f"{{{text}}}", names)["tiny"])

    rng = np.random.default_rng(0)
    shapes = {"conv1.weight": (8, 3, 3, 3), "conv1.bias": (8,), "conv2.weight": (12, 8, 3, 3), "conv2.bias": (12,)}
    np.savez(tmp_path / "w.npz", **{k: rng.normal(0, 0.1, shape).astype(np.float32) for k, shape in shapes.items()})
    published = load(tmp_path / "w.npz")
    assert (published.variant, published.scale) == ("tiny", 2)
    image = rng.integers(0, 256, (20, 90, 3), np.uint8)
    np.testing.assert_allclose(published.upscaler(tile=32).upscale(image), published.upscale(image), atol=1)

    config = peers.get_config("tiny_x2")
    config.steps, config.batch_size, config.init = 1, 8, str(tmp_path / "w.npz")
    config.data.name, config.data.dir, config.data.patch_size = "tiny", str(data_dir), 8
    train(config, tmp_path / "run")
    model = load(tmp_path / "run")
    assert (model.variant, model.scale, model.upscale(image).shape) == ("tiny", 2, (40, 180, 3))
    # Adam's first step moves every parameter by the learning rate.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), model.params, published.params)


def test_a_width_given_on_the_command_line_trains_and_its_weights_say_what_they_are(data_dir, tmp_path, capfd):
    options = {"model.features": 6, "model.blocks": 1, "model.head_kernel": 5, "steps": 1, "batch_size": 8}
    options |= {"data.name": "tiny", "data.dir": data_dir, "data.patch_size": 8}
    overrides = [f"--config.{name}={value}" for name, value in options.items()]
    command = ["train", "--config", "configs/a2f.py:sd_x2", *overrides]
    assert cli.main([*command, "--workdir", str(tmp_path)]) == 0
    # 6 features, 128 hidden channels, one block, scale 2; every k×k kernel has a gain and a bias per channel.
    head, tail_and_skip = 25 * 3 * 6 + 2 * 6, 9 * (6 + 3) * 12 + 4 * 12
    block = (9 * 6 * 128 + 2 * 128) + (9 * 128 * 6 + 2 * 6) + 6 * 6 + 2 * (6 * 6 + 6) + 3
    count = f"{head + block + tail_and_skip:,}"
    assert f"Training a2f-6x1-head5 ×2 with {count} parameters" in capfd.readouterr().err
    assert load(tmp_path).variant == "a2f-6x1-head5"
    assert cli.main(["info", str(tmp_path)]) == 0
    shown = capfd.readouterr().out
    assert "a2f-6x1-head5" in shown and count in shown
    assert cli.main([*command, "--compile-for", "cpu:2", "--json", str(tmp_path / "costs.json")]) == 0
    costs = json.loads((tmp_path / "costs.json").read_text())
    assert costs["parameter_bytes"] == 4 * (head + block + tail_and_skip)


def test_fine_tuning_starts_from_all_of_the_shipped_weights():
    config = finetune.get_config("sd_x4")
    network, weights = make_network(config, "cpu"), load(config.init).params
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    assert jax.tree.map(jnp.shape, weights) == jax.tree.map(jnp.shape, params)


def test_variants_without_shipped_weights_can_be_fine_tuned_from_others():
    assert load_config("configs/finetune.py:l_x4", ["--config.init=mine.safetensors"]).init == "mine.safetensors"
