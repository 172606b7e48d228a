"""The `a2f train` command."""

import argparse
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from a2f_jax.cli.commands import add_command
from a2f_jax.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict


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
        "  a2f train --config configs/finetune.py:sd_x4 --workdir runs/tuned --config.data.name=my_photos\n",
    )
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE[:RUN]",
        help="Python file with the settings, see configs/; RUN selects one of its runs",
    )
    parser.add_argument(
        "--workdir", required=True, type=pathlib.Path, metavar="DIR", help="folder for checkpoints and logs"
    )
    parser.add_argument("--accept-changes", action="store_true", help="resume with changed settings")
    parser.add_argument("--profile", type=int, metavar="STEP", help="write a trace of this step to DIR/profile")
    group = parser.add_argument_group(
        "several processes", "run the same command in each process; on TPU pods, SLURM and GKE, --distributed is enough"
    )
    group.add_argument("--distributed", action="store_true", help="train together with the other processes")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of the first process")
    group.add_argument("--processes", type=int, metavar="N", help="number of processes")
    group.add_argument("--process-id", type=int, metavar="I", help="index of this process, starting at 0")
    parser.add_argument(
        "--config.KEY", dest="_", metavar="VALUE", help="override a setting, for example --config.seed=1"
    )


def load_config(argument: str, overrides: Sequence[str] = ()) -> "ConfigDict":
    """Loads a config.

    Args:
      argument: `FILE[:RUN]`. A file that does not exist is looked up among the installed configs.
      overrides: arguments of the form `--config.key=value`.

    Raises:
      UserError: the file, run or setting does not exist, or a value has the wrong type.
    """
    import flax.traverse_util
    from absl import flags
    from ml_collections import config_flags

    from a2f_jax.configs import a2f

    path, colon, name = argument.partition(":")
    if not pathlib.Path(path).is_file():
        from a2f_jax import configs

        installed = pathlib.Path(configs.__file__).parent / pathlib.Path(path).name
        if str(pathlib.Path(path).parent) not in (".", "configs") or not installed.is_file():
            raise UserError(f"config file {path} does not exist: use for example configs/a2f.py:sd_x4")
        argument = f"{installed}{colon}{name}"
    values = flags.FlagValues()
    argv = ["a2f", f"--config={argument}", *overrides]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        values(argv)
        config = values.config
    except Exception as error:  # a config file is a program and can raise anything
        # For an error inside the config file, the message contains the whole traceback.
        reason = (str(error).strip().splitlines() or [""])[-1].removeprefix("ValueError: ")
        raise UserError(f"{argument}: {reason or type(error).__name__}") from error
    needed = flax.traverse_util.flatten_dict(a2f.get_config().to_dict(), sep=".")
    missing = needed.keys() - flax.traverse_util.flatten_dict(getattr(config, "to_dict", dict)(), sep=".").keys()
    if missing:
        raise UserError(
            f"{argument} lacks {', '.join(sorted(missing))}: derive the config from a2f_jax.configs.a2f.get_config()"
        )
    return config


def run(args: argparse.Namespace, rest: Sequence[str]) -> None:
    """Runs the command; `rest` holds the overrides of the config."""
    config = load_config(args.config, rest)
    if ":/" in str(args.workdir):
        raise UserError(f"--workdir {args.workdir} is not a local folder: mount the bucket first")
    if not args.distributed and (args.coordinator, args.processes, args.process_id) != (None, None, None):
        raise UserError("--coordinator, --processes and --process-id need --distributed")
    if args.distributed:
        import jax

        try:
            jax.distributed.initialize(args.coordinator, args.processes, args.process_id)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"the processes cannot connect ({reason}): pass --coordinator, --processes and --process-id"
            ) from error
    from a2f_jax.training.loop import train

    train(config, args.workdir, accept_changes=args.accept_changes, profile=args.profile)
