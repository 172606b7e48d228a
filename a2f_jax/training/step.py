"""The training step: a pure function of state and batch that runs on every device."""

from collections.abc import Callable
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from a2f_jax.models.a2f import Params
from a2f_jax.models.color import RGB_TO_LUMA, LumaNetwork
from a2f_jax.models.layers import abstract_variables, check_result
from a2f_jax.training.losses import Loss, l1
from a2f_jax.training.optimizer import frozen_parameters
from a2f_jax.training.state import TrainState

AXIS = "data"
"""The name of the device axis over which the batch is split."""

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def check_network(network: nn.Module, patch_size: int) -> None:
    """Checks that a network, possibly one of the user's, can be trained, without computing anything.

    Args:
      network: the network.
      patch_size: the side of the LR patches, in pixels.

    Raises:
      TypeError: the network needs other variables than parameters, or its result has another shape or dtype.
    """
    variables = abstract_variables(network, 1, patch_size, patch_size, 3)
    lr = jax.ShapeDtypeStruct((1, patch_size, patch_size, 3), jnp.uint8)
    try:
        sr = jax.eval_shape(network.apply, {"params": variables["params"]}, lr)
    except flax.errors.FlaxError as error:
        if others := sorted({*variables} - {"params"}):
            raise TypeError(
                f"{type(network).__name__} has the variables {', '.join(others)}, but only its `params` are trained "
                "and saved: use layers without others, such as group normalization instead of batch normalization"
            ) from error
        raise
    check_result(network, patch_size, patch_size, sr)


def make_train_step(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    loss: Loss = l1,
    ema_decay: float = 0.0,
    accumulate: int = 1,
    freeze: str = "",
    degrade: Callable[[Batch], Batch] | None = None,
) -> TrainStep:
    """Returns `train_step(state, batch) -> (state, metrics)`, to be run on every device of the axis `AXIS`.

    The batch is the share of one device, `{"lr": uint8 [b, h, w, 3], "hr": uint8 [b, s·h, s·w, 3]}`. The metrics are
    float32 scalars over the global batch: `loss`, and `grad_norm`, the global norm of the gradient before clipping. The
    loss compares R, G and B, or Y, as one channel, if the network is a `LumaNetwork`.

    Args:
      network: the network to train.
      optimizer: the optimizer that was passed to `init_state`.
      loss: a function of SR and HR, a mean over the images, see `a2f_jax.training.losses`.
      ema_decay: the decay per step of the moving average of the weights; 0 disables it.
      accumulate: the number of equal parts into which the share is split. They are processed one after another, which
        saves memory.
      freeze: which parameters keep their values, as `frozen_parameters` takes it. The optimizer has to leave them out.
      degrade: makes the pairs of a share, if the step gets something else, such as HR images and keys.
    """

    def where_trained(new: Params, old: Params) -> Params:
        if not freeze:
            return new
        return jax.tree.map(lambda fixed, x, y: y if fixed else x, frozen_parameters(old, freeze), new, old)

    def loss_fn(params: Params, batch: Batch) -> jax.Array:
        if freeze:
            params = where_trained(params, jax.lax.stop_gradient(params))
        sr: Any = network.apply({"params": params}, batch["lr"])
        hr = batch["hr"].astype(jnp.float32)
        if isinstance(network, LumaNetwork):  # the weights have no effect on chroma
            sr, hr = (jnp.matmul(image, RGB_TO_LUMA, precision="highest")[..., None] + 16 for image in (sr, hr))
        return loss(sr, hr)

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
        if degrade is not None:
            batch = degrade(batch)
        value, grads = jax.lax.pmean(loss_and_grads(state.params, batch), AXIS)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = where_trained(optax.apply_updates(state.params, updates), state.params)
        ema: Any = state.ema
        if ema_decay:
            # Start with a short memory, so that the average forgets the initial weights.
            decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
            ema = where_trained(optax.incremental_update(params, ema, 1 - decay), ema)
        metrics = {"loss": value, "grad_norm": optax.tree.norm(grads)}
        return TrainState(state.step + 1, params, ema, opt_state), metrics

    return train_step
