"""Starting a run from the weights of another."""

import dataclasses
from collections.abc import Callable

import flax.traverse_util
import jax
import jax.numpy as jnp

from a2f_jax.errors import UserError
from a2f_jax.model import load
from a2f_jax.models.a2f import Params
from a2f_jax.training.state import TrainState


def warm_start(params: Params, weights: Params) -> tuple[Params, list[str]]:
    """Takes over those weights whose names and shapes fit, such as all but tail and skip from another scale.

    Args:
      params: the parameters of a new run.
      weights: those of another.

    Returns:
      The parameters to start from, and the names of those that stay as they were.
    """
    flat, given = (flax.traverse_util.flatten_dict(tree, sep=".") for tree in (params, weights))
    fits = {name: name in given and given[name].shape == value.shape for name, value in flat.items()}
    merged = {name: given[name] if fits[name] else value for name, value in flat.items()}
    return flax.traverse_util.unflatten_dict(merged, sep="."), [name for name in flat if not fits[name]]


def start_from(weights: str, state: TrainState, say: Callable[[str], None]) -> TrainState:
    """Returns a new run's state with the weights of another run, as far as they fit.

    Args:
      weights: see `a2f_jax.load`.
      state: the state at step 0.
      say: prints a line for the user.

    Raises:
      UserError: the weights cannot be loaded, or none of them fits.
    """
    params, left = warm_start(state.params, load(weights).params)
    if len(left) == len(jax.tree.leaves(state.params)):
        raise UserError(f"config.init={weights} has no parameter that fits the network of this run")
    say(f"Starting from {weights}" + (f"; new are {', '.join(left)}" if left else ""))
    params = jax.tree.map(jnp.asarray, params)
    ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
    return dataclasses.replace(state, params=params, ema=ema)
