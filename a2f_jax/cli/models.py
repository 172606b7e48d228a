"""`a2f models`: the weights that ship with the package, and the networks that others can be loaded of or trained."""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from a2f_jax.catalog import BENCHMARK_SETS
from a2f_jax.cli.commands import add_command


def add(commands: Any) -> None:
    """Adds `a2f models` to the command line."""
    add_command(
        commands,
        "models",
        run,
        "list the weights that ship with the package, and all networks",
        "  a2f models\n  a2f upscale photo.jpg --model a2f-sd --scale 2\n  a2f info a2f-sd-x4\n  a2f info carn-m\n",
    )


def run(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Prints a table of the weights that ship with the package, and one of the networks that A2F is compared with."""
    from a2f_jax.models.registry import PEERS
    from a2f_jax.weights import read_metadata, shipped_weights

    sets = {name: BENCHMARK_SETS[name].title for name in ("set5", "set14", "b100")}
    shipped = shipped_weights()
    width = max(map(len, shipped))
    print(f"{'name':{width}}  {'MB':>4}  " + "  ".join(f"{title:14}" for title in sets.values()).rstrip())
    for name, file in shipped.items():
        scores = json.loads(read_metadata(file).get("scores", "{}"))
        cells = [f"{scores[s]['psnr']:.2f} / {scores[s]['ssim']:.4f}" if s in scores else f"{'–':14}" for s in sets]
        print(f"{name:{width}}  {file.stat().st_size / 1e6:4.1f}  {'  '.join(cells)}".rstrip())
    print(
        "PSNR in dB and SSIM, both on Y of YCbCr, of clean LR images. -photo is for photographs that were compressed "
        "as JPEG. `a2f info NAME` shows the training data."
    )

    print(f"\n{'network':10}  {'scales':8}  {'colors':6}  weights that can be loaded, from files that others published")
    for name, peer in PEERS.items():
        scales = " ".join(f"×{scale}" for scale in peer.scales)
        published = "; ".join(dict.fromkeys(item.source for item in peer.published)) or "–"
        print(f"{name:10}  {scales:8}  {'luma' if peer.luma else 'RGB':6}  {published}")
    print(
        "`a2f info NAME` shows a network's size. To train one: a2f train --config configs/peers.py:NAME_xSCALE, with _ "
        "for each - in NAME."
    )
