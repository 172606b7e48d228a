"""`a2f info`: what a weights file contains, what a network is, and the sizes of all variants."""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from a2f_jax.catalog import DEFAULT_SCALE, SCALES
from a2f_jax.cli.commands import WEIGHTS_HELP, add_command, add_scale
from a2f_jax.errors import UserError, count_of, escape
from a2f_jax.files import local_path

if TYPE_CHECKING:
    from a2f_jax.model import Model
    from a2f_jax.models.counts import Counts


def add(commands: Any) -> None:
    """Adds `a2f info` to the command line."""
    parser = add_command(
        commands,
        "info",
        run,
        "describe weights or a network, or list the parameters and multi-adds of every variant",
        "  a2f info\n  a2f info a2f-sd-x4\n  a2f info carn-m --scale 2\n",
    )
    parser.add_argument("weights", nargs="?", metavar="PATH", help=f"{WEIGHTS_HELP}, or the name of a network")
    add_scale(parser)


def run(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Prints a description of the weights or the network, or the table of variants."""
    if args.weights is not None:
        print(_describe_name(args.weights, args.scale))
    elif args.scale is not None:
        raise UserError("--scale selects a scale of weights: pass their PATH")
    else:
        from a2f_jax.models.counts import overview

        print(overview())


def _describe_name(name: str, scale: int | None) -> str:
    from a2f_jax.model import load
    from a2f_jax.models.a2f import VARIANTS
    from a2f_jax.models.registry import PEERS
    from a2f_jax.weights import shipped_weights

    shipped = f"{name}-x{scale or DEFAULT_SCALE}" in shipped_weights()
    if name in {*PEERS, *VARIANTS} and not shipped and not os.path.exists(local_path(name)):
        return _describe_network(name, scale)
    return _describe(load(name, scale))


def _describe_network(name: str, scale: int | None) -> str:
    from a2f_jax.models.a2f import build
    from a2f_jax.models.counts import count
    from a2f_jax.models.receptive_field import reach
    from a2f_jax.models.registry import PEERS

    underscored = name.replace("-", "_")
    if name in PEERS:
        peer = PEERS[name]
        scales, color = peer.scales, "luma" if peer.luma else "RGB"
        weights = "; ".join(dict.fromkeys(item.source for item in peer.published)) or "none known"
        run = f"peers.py:{underscored}"
    else:
        scales, color, weights = SCALES, "RGB", "`a2f models` lists those of the package"
        run = f"a2f.py:{name.removeprefix('a2f-')}"
    scale = scale or (DEFAULT_SCALE if DEFAULT_SCALE in scales else scales[-1])
    if scale not in scales:
        raise UserError(f"{name} upscales by {' or '.join(map(str, scales))}, not by {scale}", parameter="scale")
    network = PEERS[name].make(scale) if name in PEERS else build(name, scale)
    sizes, seen = count(network), reach(network)
    field = f"{2 * seen + 1}×{2 * seen + 1} LR pixels" if seen is not None else "the whole image"
    parts = {
        "network": PEERS[name].title if name in PEERS else name.upper(),
        "scale": f"×{scale}, of " + ", ".join(f"×{each}" for each in scales),
        "colors": color,
        **_size_lines(sizes),
        "receptive field": field,
        "weights": weights,
        "training": f"a2f train --config configs/{run}_x{scale}",
    }
    return _aligned(parts)


def _size_lines(counts: "Counts") -> dict[str, str]:
    return {
        "parameters": f"{counts.parameters:,}",
        "multi-adds": f"{counts.multiply_adds / 1e9:.1f} G for an output of 1280×720 pixels",
    }


def _aligned(parts: Mapping[str, str]) -> str:
    width = max(map(len, parts))
    return "\n".join(f"{key:{width}}  {value}" for key, value in parts.items())


def _describe(model: "Model") -> str:
    from a2f_jax.models.a2f import A2F
    from a2f_jax.models.counts import count

    network = model.network
    counts = count(network)
    parts = {"variant": model.variant, "scale": f"×{model.scale}"}
    if isinstance(network, A2F):
        parts["size"] = f"{count_of(network.features, 'feature')}, {count_of(network.blocks, 'block')}"
    parts |= _size_lines(counts)
    shown = ("variant", "network", "scale", "scores")
    parts |= {key: value for key, value in sorted(model.metadata.items()) if key not in shown}
    parts |= _describe_scores(model.metadata.get("scores", "{}"))
    return _aligned({escape(key): escape(value) for key, value in parts.items()})


def _describe_scores(text: str) -> dict[str, str]:
    try:
        return {
            name: f"{score['psnr']:.2f} dB / {score['ssim']:.4f} on Y of YCbCr"
            for name, score in json.loads(text).items()
        }
    # Anyone can write metadata.
    except (ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return {"scores": f"unreadable: {text}"}
