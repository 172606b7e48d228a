"""The training state: everything a checkpoint has to preserve."""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from a2f_jax.models.a2f import Params


@flax.struct.dataclass
class TrainState:
    """The state of a training run.

    Because the patches of a step depend only on the seed and the step, the state determines the rest of the run.

    Attributes:
      step: the number of updates done, int32 scalar.
      params: the parameters of the network, float32.
      ema: the exponential moving average of the parameters, or None.
      opt_state: the state of the optimizer.
    """

    step: jax.Array
    params: Params
    ema: Params | None
    opt_state: optax.OptState

    @property
    def weights(self) -> Params:
        """The parameters to validate and export: the moving average if there is one, otherwise `params`."""
        return self.params if self.ema is None else self.ema


def init_state(network: nn.Module, optimizer: optax.GradientTransformation, seed: int, ema: bool) -> TrainState:
    """Returns the state at step 0.

    Args:
      network: the network to train.
      optimizer: the optimizer of the run.
      seed: determines the initial parameters.
      ema: whether the state includes a moving average of the parameters.
    """
    # This generator compiles four times faster than JAX's default and is good enough for initial weights.
    key = jax.random.key(seed, impl="unsafe_rbg")
    # The shapes of the parameters do not depend on the size of the image.
    side = getattr(network, "smallest", 8)
    params = jax.jit(network.init)(key, jnp.zeros((1, side, side, 3)))["params"]

    def rest(params: Params) -> tuple[Params | None, optax.OptState]:
        # The average is a copy, because the state is donated.
        return jax.tree.map(jnp.copy, params) if ema else None, optimizer.init(params)

    average, opt_state = jax.jit(rest)(params)  # one program instead of one for each parameter
    return TrainState(step=jnp.zeros((), jnp.int32), params=params, ema=average, opt_state=opt_state)
