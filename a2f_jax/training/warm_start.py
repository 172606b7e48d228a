"""Starts a run from existing weights."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable

import flax.traverse_util
import jax
import jax.numpy as jnp

from a2f_jax.errors import UserError
from a2f_jax.model import Model, load
from a2f_jax.models.a2f import VARIANTS, Params
from a2f_jax.training.state import TrainState
from a2f_jax.weights import shipped_weights


def copy_matching(params: Params, weights: Params) -> tuple[Params, list[str]]:
    """Replaces the parameters whose names and shapes match, for example all but tail and skip of another scale.

    Args:
      params: the parameters of a new run.
      weights: the parameters of a trained network.

    Returns:
      The parameters to start from, and the dotted names of those that were not replaced.
    """
    flat, given = (flax.traverse_util.flatten_dict(tree, sep=".") for tree in (params, weights))
    fits = {name: name in given and given[name].shape == value.shape for name, value in flat.items()}
    merged = {name: given[name] if fits[name] else value for name, value in flat.items()}
    return flax.traverse_util.unflatten_dict(merged, sep="."), [name for name in flat if not fits[name]]


def _summary(left: set[str], names: Iterable[str]) -> str:
    # Modules whose parameters are all in `left` are named instead of their parameters, as in "block_04 to block_11".
    by_module: dict[str, list[str]] = {}
    for name in names:
        by_module.setdefault(name.partition(".")[0], []).append(name)

    def stem(module: str) -> str:
        return module.rstrip("0123456789")

    def kind(module: str) -> tuple[bool, str]:
        return left.issuperset(by_module[module]), stem(module)

    parts = []
    numbered = sorted(by_module, key=lambda module: (stem(module), int(module.removeprefix(stem(module)) or -1)))
    for (whole, _), group in itertools.groupby(numbered, kind):
        modules = list(group)
        if not whole:
            parts += [name for module in modules for name in by_module[module] if name in left]
        elif len(modules) > 2:
            parts.append(f"{modules[0]} to {modules[-1]}")
        else:
            parts += modules
    return ", ".join(parts)


def load_initial(weights: str, scale: int) -> Model:
    """Loads the weights that a new run starts from.

    Args:
      weights: a weights file, a work folder or the name of shipped weights, as for `a2f_jax.load`, of any scale.
      scale: the scale of the run, for published weights that do not tell theirs. The name of a variant stands for its
        weights of this scale, if they ship with the package.

    Raises:
      UserError: the weights cannot be loaded.
    """
    if weights in VARIANTS and f"{weights}-x{scale}" in shipped_weights():
        return load(weights, scale)
    try:
        return load(weights)  # of any scale
    except UserError as error:
        if error.parameter != "scale":
            raise
        return load(weights, scale)


def initialize_from(weights: str, state: TrainState, scale: int, say: Callable[[str], None]) -> TrainState:
    """Returns the state of a new run, initialized from existing weights where names and shapes match.

    Args:
      weights: a weights file, a work folder or the name of shipped weights, as for `a2f_jax.load`.
      state: the state at step 0.
      scale: the scale of the run, for published weights that do not tell theirs.
      say: prints a message for the user.

    Raises:
      UserError: the weights cannot be loaded, or no parameter matches.
    """
    try:
        loaded = load_initial(weights, scale).params
    except UserError as error:
        raise type(error)(f"config.init: {error}") from error
    params, left = copy_matching(state.params, loaded)
    if len(left) == len(jax.tree.leaves(state.params)):
        raise UserError(f"config.init={weights} has no parameter that fits the network of this run: use other weights")
    names = flax.traverse_util.flatten_dict(params, sep=".")
    say(f"Starting from {weights}" + (f"; randomly initialized: {_summary(set(left), names)}" if left else ""))
    params = jax.tree.map(jnp.asarray, params)
    ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
    return dataclasses.replace(state, params=params, ema=ema)
