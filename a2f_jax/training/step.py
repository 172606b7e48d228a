"""One training step: a pure function of state and batch, the same on every device."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from a2f_jax.models.a2f import A2F, Params
from a2f_jax.training.state import TrainState

AXIS = "data"
"""Name of the device axis that the batch is split over."""

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_train_step(
    network: A2F, optimizer: optax.GradientTransformation, *, ema_decay: float = 0.0, accumulate: int = 1
) -> TrainStep:
    """Returns `train_step(state, batch) -> (state, metrics)` for one device among those on the axis `AXIS`.

    The batch is this device's share, `{"lr": uint8 [b, h, w, 3], "hr": uint8 [b, s·h, s·w, 3]}`; the metrics, of
    the whole batch, are `loss` (mean absolute error on 0..255) and `grad_norm`.

    Args:
      network: the network to train.
      optimizer: the optimiser that `init_state` was given.
      ema_decay: decay of the average of the weights; 0 for none.
      accumulate: the number of parts, one after the other, in which the share is worked on to save memory.
    """

    def loss_fn(params: Params, batch: Batch) -> jax.Array:
        sr = network.apply({"params": params}, batch["lr"])
        return jnp.mean(jnp.abs(sr - batch["hr"].astype(jnp.float32)))  # type: ignore[operator]

    def loss_and_grads(params: Params, batch: Batch) -> tuple[jax.Array, Params]:
        if accumulate == 1:
            return jax.value_and_grad(loss_fn)(params, batch)
        parts = jax.tree.map(lambda x: x.reshape(accumulate, -1, *x.shape[1:]), batch)
        zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))

        def add(total: tuple[jax.Array, Params], part: Batch) -> tuple[tuple[jax.Array, Params], None]:
            return jax.tree.map(jnp.add, total, jax.value_and_grad(loss_fn)(params, part)), None

        total, _ = jax.lax.scan(add, zeros, parts)
        return jax.tree.map(lambda x: x / accumulate, total)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        loss, grads = jax.lax.pmean(loss_and_grads(state.params, batch), AXIS)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema_decay:
            # A short memory at first, so that the average does not remember the initial weights.
            decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
            ema = optax.incremental_update(params, ema, 1 - decay)
        metrics = {"loss": loss, "grad_norm": optax.global_norm(grads)}
        return TrainState(state.step + 1, params, ema, opt_state), metrics

    return train_step
