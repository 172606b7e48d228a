"""The optimizer and its learning rate schedule."""

import re

import flax.traverse_util
import jax
import optax
from ml_collections import ConfigDict
from optax.contrib import MuonDimensionNumbers, muon

from a2f_jax.errors import UserError
from a2f_jax.models.a2f import Params


def learning_rate(config: ConfigDict) -> optax.Schedule:
    """Returns the learning rate as a function of the step.

    Args:
      config: the settings of the run, which `settings.check` accepts; only `optimizer` and `steps` are used.
    """
    o = config.optimizer
    decay = {
        "halving": lambda: optax.exponential_decay(o.learning_rate, min(o.halve_every, 2**31 - 1), 0.5, staircase=True),
        "cosine": lambda: optax.cosine_decay_schedule(o.learning_rate, max(1, config.steps - o.warmup)),
    }[o.schedule]()
    if not o.warmup:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, o.learning_rate, o.warmup), decay], [o.warmup])


def _matrices(params: Params) -> Params:
    # Muon treats kernels as matrices: the last axis is the output, all other axes together are the input.

    def dimensions(x: jax.Array) -> MuonDimensionNumbers | None:
        if x.ndim < 2:
            return None
        return MuonDimensionNumbers(reduction_axis=tuple(range(x.ndim - 1)), output_axis=x.ndim - 1)

    return jax.tree.map(dimensions, params)


def frozen_parameters(params: Params, pattern: str) -> Params:
    """Returns which parameters are not trained: a tree of bools.

    Args:
      params: the parameters of a network.
      pattern: a regular expression that is searched in the names of the parameters, such as
        `"block_00/attention/squeeze/kernel"`. If it is empty, all are trained.

    Raises:
      UserError: the expression has a match in no name, or in every name.
    """
    if not pattern:
        return jax.tree.map(lambda _: False, params)
    names = list(flax.traverse_util.flatten_dict(params, sep="/"))
    found = {name: bool(re.search(pattern, name)) for name in names}
    if len({*found.values()}) == 1:
        effect = "every parameter, so that nothing would be trained" if found[names[0]] else "no parameter"
        some = names[:: max(1, len(names) // 6)]
        raise UserError(
            f"config.optimizer.freeze={pattern} matches {effect}: it is searched in names such as {', '.join(some)}"
        )
    return flax.traverse_util.unflatten_dict(found, sep="/")


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Returns the optimizer that a config describes, with its schedule and optional clipping by the global norm.

    The paper uses `"adam"`. `"muon"` (Jordan, 2024) orthogonalizes the momentum of every kernel, seen as a matrix with
    height · width · input channels rows and one column per output channel; gains, biases and adaptive weights are
    updated by Adam.

    The state has the same structure with and without clipping, so that clipping can be switched on or off when a run
    resumes. Frozen parameters have no state, and do not count in the norm.

    Args:
      config: the settings of the run, which `settings.check` accepts; only `optimizer` and `steps` are used.
    """
    o = config.optimizer
    rate = learning_rate(config)
    adam_factor = o.get("adam_factor")
    adam_factor = 1.0 if adam_factor is None else adam_factor
    rule = {
        "adam": lambda: optax.adam(rate, b1=o.b1, b2=o.b2, eps=o.eps),
        "muon": lambda: muon(
            rate,
            adam_learning_rate=lambda step: adam_factor * rate(step),
            beta=o.momentum,
            eps=o.eps,
            adam_b1=o.b1,
            adam_b2=o.b2,
            muon_weight_dimension_numbers=_matrices,
        ),
    }[o.name]()
    clipped = optax.chain(optax.clip_by_global_norm(o.clip_norm) if o.clip_norm else optax.identity(), rule)
    if not o.freeze:
        return clipped

    def labels(params: Params) -> Params:
        return jax.tree.map(lambda fixed: "frozen" if fixed else "trained", frozen_parameters(params, o.freeze))

    return optax.multi_transform({"trained": clipped, "frozen": optax.set_to_zero()}, labels)
