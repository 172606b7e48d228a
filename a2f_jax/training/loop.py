"""The training loop, from a config to trained weights."""

import pathlib

import jax
import numpy as np
from ml_collections import ConfigDict

from a2f_jax.data import Patches, open_cache, open_pairs
from a2f_jax.errors import UserError
from a2f_jax.models.a2f import A2F, VARIANTS
from a2f_jax.models.model import Model
from a2f_jax.training.checkpoints import Checkpoints
from a2f_jax.training.monitor import Monitor
from a2f_jax.training.optimizer import learning_rate, make_optimizer
from a2f_jax.training.spmd import parallelise
from a2f_jax.training.state import TrainState, init_state
from a2f_jax.training.step import make_train_step
from a2f_jax.training.validation import middle, validate


def make_network(config: ConfigDict) -> A2F:
    """Returns the network that `config.model` describes; `UserError` if there is none such."""
    settings = config.model.to_dict()
    try:
        size = VARIANTS[settings.pop("variant")]
        # The paper's ablations (configs/ablation.py) set the number of blocks themselves.
        return A2F(**{"features": size.features, "blocks": size.blocks, **settings})
    except KeyError as error:
        raise UserError(f"config.model.variant={error} is unknown: choose one of {', '.join(VARIANTS)}") from None


def train(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Trains a network, going on from the newest checkpoint in the work folder if there is one.

    Args:
      config: the settings, of the form of `configs/a2f.py`.
      workdir: receives checkpoints, logs, and pictures; made where it does not exist.

    Raises:
      UserError: a setting is impossible, the data are missing, or the folder cannot be written.
    """
    network = make_network(config)
    optimizer = make_optimizer(config)
    spmd = parallelise(make_train_step(network, optimizer, config.ema_decay), config.spmd)

    data_dir = config.data.dir or None
    cache = open_cache(config.data.name, scale=network.scale, split="train", data_dir=data_dir)
    held_out = open_pairs(config.data.name, scale=network.scale, split="validation", data_dir=data_dir)
    images = [middle(held_out[i], network.scale) for i in range(min(len(held_out), config.validation_images))]

    checkpoints = Checkpoints(workdir, config)
    initial = init_state(network, optimizer, config.seed, ema=config.ema_decay > 0)
    restored = checkpoints.restore(initial)
    state = spmd.put_state(restored or initial)
    step = int((restored or initial).step)
    rate = learning_rate(config)

    def save(state: TrainState, monitor: Monitor, validated: bool) -> None:
        scores = None
        if validated:
            model = Model(network, jax.device_get(state.weights))
            scores, picture = validate(model, images)
            monitor.validated(scores, {"result-and-truth": picture})
        checkpoints.save(state, scores)

    patches = Patches(
        cache,
        seed=config.seed,
        batch_size=config.batch_size,
        patch_size=config.data.patch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    with Monitor(workdir, step, config.steps, config.batch_size, jax.process_index() == 0) as monitor:
        monitor.say(f"{'Going on' if restored else 'Starting'} at step {step} of {config.steps} in {workdir}")
        batches = patches.prefetch(step)
        while step < config.steps:
            with monitor.waiting_for_data():
                batch = next(batches)
            state, metrics = spmd.step(state, spmd.put_batches(jax.tree.map(lambda x: x[None], batch)))
            step += 1
            monitor.advance(step)
            last = step == config.steps
            if step % config.log_every == 0 or last:
                figures = {name: float(np.asarray(values)[-1]) for name, values in metrics.items()}
                monitor.report({**figures, "learning_rate": float(rate(step - 1))})
            validated = step % config.validate_every == 0 or last
            if step % config.checkpoint_every == 0 or validated:
                with monitor.pause():
                    save(spmd.get_state(state), monitor, validated)
        checkpoints.close()
