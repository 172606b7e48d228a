"""The optimiser and its learning rate, from a config."""

import optax
from ml_collections import ConfigDict

from a2f_jax.errors import UserError


def learning_rate(config: ConfigDict) -> optax.Schedule:
    """Returns the learning rate as a function of the step.

    Args:
      config: the whole config; reads `optimizer` and `steps`.

    Raises:
      UserError: `optimizer.schedule` is unknown.
    """
    o = config.optimizer
    match o.schedule:
        case "halving":
            decay = optax.exponential_decay(o.learning_rate, o.halve_every, 0.5, staircase=True)
        case "cosine":
            decay = optax.cosine_decay_schedule(o.learning_rate, max(1, config.steps - o.warmup))
        case _:
            raise UserError(f"config.optimizer.schedule={o.schedule!r} is unknown: choose 'halving' or 'cosine'")
    if not o.warmup:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, o.learning_rate, o.warmup), decay], [o.warmup])


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Returns Adam with the config's schedule, behind clipping by the global norm where it is asked for.

    Its state has the same structure with and without clipping: a run may go on with the other.
    """
    o = config.optimizer
    adam = optax.adam(learning_rate(config), b1=o.b1, b2=o.b2, eps=o.eps)
    return optax.chain(optax.clip_by_global_norm(o.clip_norm) if o.clip_norm else optax.identity(), adam)
