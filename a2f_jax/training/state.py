"""Everything a training run must not lose."""

import flax
import jax
import jax.numpy as jnp
import optax

from a2f_jax.models.a2f import A2F, Params


@flax.struct.dataclass
class TrainState:
    """State of a training run; with a sampler that is a function of the step it determines all that follows.

    Attributes:
      step: int32 scalar, the number of updates done.
      params: the network's parameters, float32.
      ema: their exponential moving average, or None.
      opt_state: the optimiser's state.
    """

    step: jax.Array
    params: Params
    ema: Params | None
    opt_state: optax.OptState

    @property
    def weights(self) -> Params:
        """The parameters to validate and export: the average where there is one."""
        return self.params if self.ema is None else self.ema


def init_state(network: A2F, optimizer: optax.GradientTransformation, seed: int, ema: bool) -> TrainState:
    """Returns the state at step 0, a function of the seed alone."""
    # This generator compiles in a quarter of the time that JAX's default takes, and is good enough for weights.
    key = jax.random.key(seed, impl="unsafe_rbg")
    # The parameters' shapes do not depend on the image's size.
    params = jax.jit(network.init)(key, jnp.zeros((1, 8, 8, 3)))["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema=jax.tree.map(jnp.copy, params) if ema else None,  # not the same buffers: the state is donated
        opt_state=optimizer.init(params),
    )
