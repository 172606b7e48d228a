"""Debugging aids for training runs: profiler traces, the origin of a NaN, and the cause of a divergence."""

import contextlib
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from a2f_jax.data import Patches
from a2f_jax.errors import UserError
from a2f_jax.training.spmd import Spmd
from a2f_jax.training.step import AXIS, Metrics, TrainStep


@contextlib.contextmanager
def tracing(workdir: pathlib.Path, profile: int | None, step: int, count: int) -> Iterator[bool]:
    """Traces the dispatch that contains step `profile` into `workdir/profile`.

    Yields whether this dispatch is traced, in which case the caller must wait for its results inside the block.
    """
    traced = profile is not None and step <= profile < step + count
    with jax.profiler.trace(str(workdir / "profile")) if traced else contextlib.nullcontext():
        yield traced


def checked_step(
    spmd: Spmd, train_step: TrainStep, patches: Patches, step: int, state: Any, inputs: Any
) -> tuple[Any, Metrics]:
    """Runs a dispatch for `config.checks`: disallows implicit transfers and traces a NaN or infinity to its origin.

    Args:
      spmd: the parallel step, which must not donate the state.
      train_step: the per-device step.
      patches: the sampler of the run.
      step: the number of the first update in the dispatch.
      state: the state that `spmd.step` takes.
      inputs: the inputs that `spmd.step` takes.

    Returns:
      The result of `spmd.step`.

    Raises:
      UserError: a metric or a new weight is not finite. The message names the step, the operation and the block.
    """
    with jax.transfer_guard("disallow"):
        result, metrics = jax.block_until_ready(spmd.step(state, inputs))
    if _finite((spmd.get_state(result), metrics)):
        return result, metrics
    one = jax.tree.map(jnp.asarray, jax.device_get(spmd.get_state(state)))
    # As one device that processes the whole share of this process.
    update = jax.vmap(train_step, in_axes=(None, 0), out_axes=None, axis_name=AXIS)
    compiled = jax.jit(update)
    for number in range(step, step + len(next(iter(metrics.values())))):
        batch = {key: jnp.asarray(value)[None] for key, value in patches.batch(number).items()}
        following = compiled(one, batch)
        if not _finite(following):
            origin = find_nonfinite(update, one, batch) or "it does not occur on a single device"
            raise UserError(f"config.checks found a NaN or an infinity at step {number}: {origin}")
        one = following[0]
    raise UserError(
        f"config.checks found a NaN or an infinity in steps {step} to {number} that does not occur on a single device"
    )


def _finite(tree: Any) -> bool:
    # With NumPy, which does not have to compile a program for every shape.
    leaves = jax.tree.leaves(tree)
    return all(np.isfinite(np.asarray(x)).all() for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact))


def find_nonfinite(function: Any, *arguments: Any) -> str | None:
    """Finds the first operation of a function that makes a NaN or an infinity of finite values.

    Args:
      function: a function of pytrees of arrays that JAX can trace.
      *arguments: its arguments.

    Returns:
      The operation, and where it is, such as `"mul in block_03/expand, backward pass"`, or None.
    """
    traced = jax.make_jaxpr(function)(*arguments)
    return _walk(traced.jaxpr, traced.consts, jax.tree.leaves(arguments), "")


def _walk(jaxpr: core.Jaxpr, consts: Sequence[Any], arguments: Sequence[Any], path: str) -> str | None:
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))
    for equation in jaxpr.eqns:
        variables = [x for x in equation.invars if not isinstance(x, core.Literal)]
        alone = jaxpr.replace(constvars=(), invars=variables, outvars=equation.outvars, eqns=[equation])
        outputs = core.jaxpr_as_fun(core.ClosedJaxpr(alone, ()))(*(values[x] for x in variables))
        if not _finite(outputs):
            where = f"{path}/{equation.source_info.name_stack}"
            inputs = [x.val if isinstance(x, core.Literal) else values[x] for x in equation.invars]
            return _walk_inside(equation, inputs, where) or _describe(equation, where)
        values.update(zip(equation.outvars, outputs, strict=True))
    return None


def _walk_inside(equation: core.JaxprEqn, inputs: Sequence[Any], path: str) -> str | None:
    body: Any = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    jaxpr, consts = (body.jaxpr, body.consts) if isinstance(body, core.ClosedJaxpr) else (body, ())
    if not isinstance(jaxpr, core.Jaxpr):
        return None
    if equation.primitive.name != "scan":
        return _walk(jaxpr, consts, inputs, path) if len(jaxpr.invars) == len(inputs) else None
    fixed, carried = equation.params["num_consts"], equation.params["num_carry"]
    constants, carry, stacked = inputs[:fixed], inputs[fixed : fixed + carried], inputs[fixed + carried :]
    iterations = range(equation.params["length"])
    for i in reversed(iterations) if equation.params["reverse"] else iterations:
        arguments = [*constants, *carry, *(x[i] for x in stacked)]
        outputs = core.jaxpr_as_fun(body)(*arguments)
        if not _finite(outputs):
            return _walk(jaxpr, consts, arguments, path)
        carry = outputs[:carried]
    return None


def _describe(equation: core.JaxprEqn, path: str) -> str:
    # Such as "/vmap(transpose(jvp(A2F)))/block_03/expand".
    scopes = [re.sub(r"\w+\(|\)", "", part) for part in path.split("/")]
    block = "/".join(scope for scope in scopes if scope and scope != "A2F")
    phase = "backward pass" if "transpose(" in path else "forward pass" if "jvp(" in path else "update"
    return f"{equation.primitive.name} in {f'{block}, ' if block else ''}{phase}"


def explain_divergence(patches: Patches, workdir: pathlib.Path, step: int, seed: int, rate: float) -> NoReturn:
    """Raises a `UserError` that names the step and the images at which a run diverged, and what to change."""
    chosen = patches.choice(step)[0]
    names = ", ".join(sorted({patches.cache.names[i] for i in chosen}))
    raise UserError(
        f"training diverged at step {step}: the loss, the gradient or the new weights are not finite (learning rate "
        f"{rate:.3g}, batch {step} of seed {seed}: {names}). Checkpoints in {workdir}, if any, are from before that "
        "step. config.checks=True names the operation. Lower config.optimizer.learning_rate or set "
        "config.optimizer.clip_norm, then resume and accept the changes",
        parameter="accept_changes",
    )
