"""Measures the weights that ship with the package, and updates their tables in README.md and docs/weights.md.

    python benchmarks/weights.py --data benchmark
    python benchmarks/weights.py --data benchmark --add runs/sd_x2 --trained-on "CLIC 2025 (...)"
    python benchmarks/weights.py --data benchmark --add runs/photo_x4 --trained-on "CLIC 2025 (...)"

With `--add`, the best checkpoint of each training run is first added to the package. The scores are stored in the
metadata of the weights, where `a2f models` finds them. Weights that were trained on degraded LR images have the name of
the degradation, as in `a2f-sd-x4-photo`; the tables leave them out, and `benchmarks/photo.py` compares them.
"""

import argparse
import hashlib
import json
import pathlib
import subprocess

from pages import write_between

from a2f_jax.errors import UserError
from a2f_jax.evaluation.benchmark import Bicubic, evaluate
from a2f_jax.evaluation.paper import PUBLISHED
from a2f_jax.model import Model, load, save
from a2f_jax.models.a2f import VARIANTS
from a2f_jax.weights import shipped_weights

ROOT = pathlib.Path(__file__).parents[1]
WEIGHTS = ROOT / "a2f_jax/weights"
SETS = {"set5": "Set5", "set14": "Set14", "b100": "B100"}


def _plain_name(model: Model) -> str:
    return f"{model.variant}-x{model.scale}"


def add(run: str, trained_on: str) -> None:
    """Adds the best checkpoint of a training run to the package, such as `a2f-sd-x4` or `a2f-sd-x4-photo`."""
    model = load(run)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
    about = {"data": trained_on, "license": "Apache-2.0", "commit": commit}
    name = "-".join([_plain_name(model), *filter(None, [model.metadata.get("degradation")])])
    save(model, WEIGHTS / f"{name}.safetensors", about)


def scores(upscaler, data: str) -> dict[str, dict[str, float]]:
    """Measures the benchmark sets that are available at the upscaler's scale."""
    found = {}
    for name in SETS:
        try:
            (result,) = evaluate(upscaler, [name], data_dir=data)
        except UserError as error:
            print(f"skipped: {error}")
            continue
        found[name] = {"psnr": result["psnr"], "ssim": result["ssim"]}  # rounded once, where they are printed
    return found


def row(name: str, values: dict[str, dict[str, float]], style: str = "{}") -> str:
    """Formats a row of the table; `style` formats each of its cells."""
    cells = [f"{values[s]['psnr']:.2f} / {values[s]['ssim']:.4f}" if s in values else "" for s in SETS]
    return f"| {' | '.join(style.format(cell) if cell else '' for cell in (name, *cells))} |"


def checksums() -> str:
    """Formats the names, sizes and SHA-256 sums of the files as a Markdown table."""
    lines = ["| file | bytes | SHA-256 |", "|---|---:|---|"]
    for file in sorted(shipped_weights().values()):
        content = file.read_bytes()
        lines.append(f"| `{file.name}` | {len(content):,} | `{hashlib.sha256(content).hexdigest()}` |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder that contains Set5/, Set14/, ...")
    parser.add_argument("--add", nargs="+", default=[], metavar="RUN", help="training runs to add to the package")
    parser.add_argument("--trained-on", help="training images of the added runs, and their licenses")
    args = parser.parse_args()
    if args.add and not args.trained_on:
        parser.error("--add requires --trained-on")
    for run in args.add:
        add(run, args.trained_on)

    lines = [f"| weights | {' | '.join(SETS.values())} |", "|---|---|---|---|"]
    models = {name: load(file) for name, file in shipped_weights().items()}
    order = sorted(models, key=lambda name: (models[name].scale, list(VARIANTS).index(models[name].variant), name))
    last_of_scale = {models[name].scale: name for name in order if name == _plain_name(models[name])}
    for name in order:
        model = models[name]
        found = scores(model, args.data)
        if not found:
            raise SystemExit(f"no benchmark set for ×{model.scale} in {args.data}: no table was written")
        if json.dumps(found) != model.metadata.get("scores"):
            save(model, shipped_weights()[name], {"scores": json.dumps(found)})
        if name != _plain_name(model):
            continue
        lines.append(row(f"`{name}`", found))
        if paper := PUBLISHED.get((model.variant, model.scale)):
            lines.append(row(f"the paper's {model.variant.upper()} ×{model.scale}", paper, "*{}*"))
        if name == last_of_scale[model.scale]:
            lines.append(row(f"bicubic ×{model.scale}", scores(Bicubic(model.scale), args.data), "*{}*"))
    table = "\n".join(lines)
    print(table)
    for document in (ROOT / "README.md", ROOT / "docs/weights.md"):
        write_between(document, "weights", table)
    write_between(ROOT / "docs/weights.md", "checksums", checksums())


if __name__ == "__main__":
    main()
