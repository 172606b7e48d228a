"""The `a2f train` command."""

import argparse
import ast
import contextlib
import os
import pathlib
import re
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from a2f_jax.cli import cost_tables
from a2f_jax.cli.commands import add_command
from a2f_jax.errors import UserError, count_of
from a2f_jax.files import as_path, local_path

if TYPE_CHECKING:
    from ml_collections import ConfigDict


PREEMPTED = os.EX_TEMPFAIL
"""The exit code, 75, of a run that was asked to stop by SIGTERM, and whose state is saved."""


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "train",
        run,
        "train a network, or resume a run that was stopped",
        "  a2f train --config configs/sample.py --workdir runs/first\n"
        "  a2f train --config configs/a2f.py:sd_x4 --workdir runs/sd_x4\n"
        "  a2f train --config configs/a2f.py:m_x2 --workdir runs/m_x2 --config.data.name=my_photos "
        "--config.batch_size=32\n"
        "  a2f train --config configs/finetune.py:sd_x4 --workdir runs/tuned --config.data.name=my_photos\n"
        "  a2f train --config configs/a2f.py:sd_x4 --compile-for v5e:16x16\n",
    )
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE[:RUN]",
        help="Python file with the settings, see configs/; RUN selects one of its runs",
    )
    parser.add_argument(
        "--workdir",
        metavar="DIR",
        help="folder for checkpoints and logs, also gs://...; required, except with --compile-for",
    )
    parser.add_argument(
        "--accept-changes", action="store_true", help="resume even if settings that affect the result have changed"
    )
    parser.add_argument("--profile", type=int, metavar="STEP", help="write a trace of this step to DIR/profile")
    group = parser.add_argument_group(
        "several processes", "run the same command in each process; on TPU pods, SLURM and GKE, --distributed is enough"
    )
    group.add_argument("--distributed", action="store_true", help="train together with the other processes")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of the first process")
    group.add_argument("--processes", type=int, metavar="N", help="number of processes")
    group.add_argument("--process-id", type=int, metavar="I", help="index of this process, starting at 0")
    cost_tables.add_arguments(parser, "the training step")
    # Not an option of the parser, which would accept it, and abbreviations of it, as if it were a setting.
    parser.add_argument_group("settings", "--config.KEY VALUE overrides a setting, for example --config.seed 1")


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates the overrides of a config from arguments that do not exist.

    Args:
      arguments: those that the parser does not know, such as `["--config.seed", "1", "--verbose"]`.

    Returns:
      The overrides, each in one piece such as `"--config.seed=1"`, and the other arguments.
    """
    overrides, unrecognized = [], []
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        if not argument.startswith("--config."):
            unrecognized.append(argument)
        elif "=" not in argument and remaining and not remaining[0].startswith("--"):
            overrides.append(f"{argument}={remaining.pop(0)}")
        else:
            overrides.append(argument)
    return overrides, unrecognized


def load_config(argument: str, overrides: Sequence[str] = ()) -> "ConfigDict":
    """Loads a config.

    Args:
      argument: `FILE[:RUN]`. A file that does not exist is looked up among the installed configs.
      overrides: arguments of the form `--config.key=value`.

    Raises:
      UserError: the file, run or setting does not exist, or a value has the wrong type.
    """
    from ml_collections import ConfigDict

    from a2f_jax import configs
    from a2f_jax.training import settings

    path, colon, name = argument.partition(":")
    file = local_path(path)
    if not file.is_file():
        installed = pathlib.Path(configs.__file__).parent / file.name
        if str(file.parent) not in (".", "configs") or not installed.is_file():
            raise UserError(f"config file {path} does not exist: use for example configs/a2f.py:sd_x4")
        file = installed
    argument = f"{path}{colon}{name}"
    location = f"{file}{colon}{name}"
    try:
        config = _parse(location)
    except Exception as error:  # a config file is a program and can raise anything
        # For an error inside the config file, the message contains the whole traceback.
        reason = (str(error).strip().splitlines() or [""])[-1].removeprefix("ValueError: ")
        raise UserError(f"{argument}: {reason or type(error).__name__}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"{argument}: get_config() returns {type(config).__name__} instead of a ConfigDict")
    settings.check_complete(config, argument)
    existing = settings.flat(config)
    others: list[str] = []
    lists: dict[str, list[Any]] = {}  # ml_collections cannot override lists, which a config of one's own may contain
    for override in overrides:
        key, _, value = override.removeprefix("--config.").partition("=")
        if key not in existing and settings.rule_of(key):
            raise UserError(
                f"{argument} does not have --config.{key}: it belongs to other networks, or to a config of your own"
            )
        if key not in existing:
            closest = [f"--config.{name}" for name in settings.closest_settings(key, existing)]
            remedy = f"did you mean {' or '.join(closest)}?" if closest else "configs/a2f.py lists all settings"
            raise UserError(f"unknown setting --config.{key}; {remedy}")
        if isinstance(_entry(config, key), list):
            lists[key] = [*_sequence(value)]
            continue
        if isinstance(existing[key], tuple):
            others.append(f"--config.{key}={_sequence(value)!r}")
        else:
            others.append(override)
        try:
            _parse(location, others[-1])
        except Exception as error:  # absl and ml_collections raise many kinds
            rule = settings.rule_of(key) or f"a value of type {type(existing[key]).__name__}"
            raise UserError(f"--config.{key}={value} is invalid: it must be {rule}") from error
    changed = {override.removeprefix("--config.").partition("=")[0] for override in overrides}
    config = _parse(location, *others)
    config.update_from_flattened_dict(lists)
    own = {name for name in ("model.features", "model.blocks") if existing.get(name) is not None} - changed
    if "model.variant" in changed and own:
        raise UserError(
            f"--config.model.variant={config.model.variant} has no effect, because {argument} sets "
            f"{' and '.join(sorted(own))}: override {'them' if len(own) > 1 else 'it'} instead"
        )
    return config


def _entry(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config.get(part) if hasattr(config, "get") else None
    return config


def _sequence(text: str) -> tuple[Any, ...]:
    # To ml_collections, a comma-separated list of names, as other commands take it, is one name, or an error.
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return tuple(name.strip() for name in text.split(","))
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _parse(location: str, *overrides: str) -> Any:
    from absl import flags
    from ml_collections import config_flags

    values = flags.FlagValues()
    argv = ["a2f", f"--config={location}", *overrides]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values(argv)
    return values.config


def run(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Runs the command; `rest` holds the overrides of the config.

    Returns:
      0 if the run is done, `PREEMPTED` if it was asked to stop and can be resumed.
    """
    json_path = cost_tables.json_path(args)
    if args.compile_for is not None:
        _print_costs(args, load_config(args.config, split_overrides(rest)[0]), json_path)
        return 0
    if args.workdir is None:
        args.parser.error("the following arguments are required: --workdir")
    workdir = as_path(args.workdir)
    if not args.distributed and (args.coordinator, args.processes, args.process_id) != (None, None, None):
        raise UserError("--coordinator, --processes and --process-id require --distributed")
    if args.distributed:
        _connect(args)
    from a2f_jax.compilation_cache import enable_compilation_cache
    from a2f_jax.training.loop import run_training
    from a2f_jax.training.processes import failing_together

    with failing_together() if args.distributed else contextlib.nullcontext():  # a machine may lack the file
        config = load_config(args.config, split_overrides(rest)[0])

    enable_compilation_cache()
    finished = run_training(config, workdir, accept_changes=args.accept_changes, profile=args.profile)
    return 0 if finished else PREEMPTED


def _print_costs(args: argparse.Namespace, config: "ConfigDict", json_path: pathlib.Path | None) -> None:
    from a2f_jax.hardware import OutOfMemory, parse_target
    from a2f_jax.training import step_costs

    processes = args.distributed or (args.coordinator, args.processes, args.process_id) != (None, None, None)
    if args.workdir or args.accept_changes or args.profile is not None or processes:
        raise UserError(
            "--compile-for does not train: leave out --workdir, --accept-changes, --profile, --distributed, "
            "--coordinator, --processes, --process-id"
        )
    target = parse_target(args.compile_for)
    even = step_costs.with_even_batch(config, target.device_count)
    if even.batch_size != config.batch_size:
        print(
            f"config.batch_size={config.batch_size} cannot be split evenly among "
            f"{count_of(target.device_count, 'device')}"
            f"{f' with config.accumulate={config.accumulate}' if config.accumulate > 1 else ''}: "
            f"compiling for {even.batch_size}, as with --config.batch_size={even.batch_size}"
        )
    figures: dict[str, Any] = {"devices": target.name, "fits": False}
    try:
        cost_tables.waiting(f"the training step for {target.name}")
        costs = step_costs.step_costs(even, target)
        cost_tables.waiting("", done=True)
        cost_tables.print_step(costs, even.model.dtype, even.data.patch_size)
        figures = cost_tables.step_figures(costs)
        reason = cost_tables.shortage(costs.program.peak_memory, target.accelerator)
    except OutOfMemory as error:
        reason = str(error)
    ways = []
    if not figures["fits"]:
        for change in step_costs.ways_to_fit(even, target, cost_tables.waiting):
            cost_tables.waiting("", done=True)
            ways.append(step_costs.describe(change))
        figures["ways_to_fit"] = ways
    if json_path:
        cost_tables.write_json(json_path, figures)
    if not figures["fits"]:
        remedy = f"it fits with {', or '.join(ways)}" if ways else "use more devices, a smaller patch or fewer blocks"
        raise UserError(f"the training step does not fit into one {target.accelerator.kind} ({reason}): {remedy}")


def _check_coordinator(address: str, listens: bool) -> None:
    # JAX itself ends with a traceback, or aborts the process.
    host, _, digits = address.rpartition(":")
    port = int(digits) if re.fullmatch(r"[0-9]{1,5}", digits) else 0
    if not host or not 1 <= port < 1 << 16:
        raise UserError(f"--coordinator {address} is not of the form HOST:PORT, such as localhost:1234")
    if not listens:
        return
    for family, anywhere in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):
        with contextlib.suppress(OSError), socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was in use until now is free
            listener.bind((anywhere, port))
            return
    raise UserError(f"port {port} of this machine is in use: pass a --coordinator with another port to all processes")


def _connect(args: argparse.Namespace) -> None:
    import jax

    if args.coordinator is not None:
        _check_coordinator(args.coordinator, listens=args.process_id == 0)
    try:
        jax.distributed.initialize(args.coordinator, args.processes, args.process_id)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"the processes cannot connect ({reason}): pass --coordinator, --processes and --process-id"
        ) from error
