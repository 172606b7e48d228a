"""`a2f info`: what a weights file contains, and the sizes of all variants."""

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from a2f_jax.cli.commands import WEIGHTS_HELP, add_command

if TYPE_CHECKING:
    from a2f_jax.model import Model


def add(commands: Any) -> None:
    """Adds `a2f info` to the command line."""
    parser = add_command(
        commands,
        "info",
        run,
        "describe weights, or list the parameters and multi-adds of every variant",
        "  a2f info\n  a2f info a2f-sd-x4\n",
    )
    parser.add_argument("weights", nargs="?", metavar="PATH", help=WEIGHTS_HELP)


def run(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Prints a description of the weights, or the table of variants."""
    if args.weights is not None:
        from a2f_jax.model import load

        print(_describe(load(args.weights)))
    else:
        from a2f_jax.models.counts import overview

        print(overview())


def _describe(model: "Model") -> str:
    from a2f_jax.models.counts import count

    network = model.network
    counts = count(network)
    facts = {
        "variant": model.variant,
        "scale": f"×{model.scale}",
        "size": f"{network.features} features, {network.blocks} blocks",
        "parameters": f"{counts.parameters:,}",
        "multi-adds": f"{counts.multiply_adds / 1e9:.1f} G for an output of 1280×720 pixels",
        **{key: value for key, value in sorted(model.metadata.items()) if key not in ("variant", "scale", "scores")},
    }
    for name, score in json.loads(model.metadata.get("scores", "{}")).items():
        facts[name] = f"{score['psnr']:.2f} dB / {score['ssim']:.4f} on Y of YCbCr"
    width = max(map(len, facts))
    return "\n".join(f"{key:{width}}  {value}" for key, value in facts.items())
