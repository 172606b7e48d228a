"""`a2f info`: what a weights file contains, and the sizes of all variants."""

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from a2f_jax.cli.commands import WEIGHTS_HELP, add_command, add_scale
from a2f_jax.errors import UserError, escape

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
    add_scale(parser)


def run(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Prints a description of the weights, or the table of variants."""
    if args.weights is not None:
        from a2f_jax.model import load

        print(_describe(load(args.weights, args.scale)))
    elif args.scale is not None:
        raise UserError("--scale selects a scale of weights: pass their PATH")
    else:
        from a2f_jax.models.counts import overview

        print(overview())


def _describe(model: "Model") -> str:
    from a2f_jax.models.a2f import A2F
    from a2f_jax.models.counts import count

    network = model.network
    counts = count(network)
    parts = {"variant": model.variant, "scale": f"×{model.scale}"}
    if isinstance(network, A2F):
        parts["size"] = f"{network.features} features, {network.blocks} blocks"
    parts["parameters"] = f"{counts.parameters:,}"
    parts["multi-adds"] = f"{counts.multiply_adds / 1e9:.1f} G for an output of 1280×720 pixels"
    shown = ("variant", "network", "scale", "scores")
    parts |= {key: value for key, value in sorted(model.metadata.items()) if key not in shown}
    parts |= _describe_scores(model.metadata.get("scores", "{}"))
    parts = {escape(key): escape(value) for key, value in parts.items()}
    width = max(map(len, parts))
    return "\n".join(f"{key:{width}}  {value}" for key, value in parts.items())


def _describe_scores(text: str) -> dict[str, str]:
    try:
        return {
            name: f"{score['psnr']:.2f} dB / {score['ssim']:.4f} on Y of YCbCr"
            for name, score in json.loads(text).items()
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # anyone can write metadata
        return {"scores": f"unreadable: {text}"}
