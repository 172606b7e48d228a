"""Measures exported models in ONNX Runtime on this CPU: PSNR, SSIM, file size, and running time beside `Model.upscale`.

python benchmarks/export.py --data benchmark --table docs/export.md
"""

import argparse
import dataclasses
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np
import onnxruntime
from pages import page_with, write_between

import a2f_jax

ROUNDS = 9
SIDE = 256  # LR pixels


@dataclasses.dataclass
class _Form:
    variant: str
    scale: int
    upscale: Callable[[np.ndarray], np.ndarray]
    size: int | None = None


def forms(weights: str, folder: pathlib.Path) -> list[_Form]:
    """Returns the model itself, and its exported files."""
    model = a2f_jax.load(weights)
    found = [_Form("`Model.upscale`", model.scale, model.upscale)]
    for dtype in ("float32", "float16"):
        file = folder / f"{dtype}.onnx"
        a2f_jax.export(model, file, input="uint8", dtype=dtype)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

        def upscale(image: np.ndarray, session: onnxruntime.InferenceSession = session) -> np.ndarray:
            return session.run(None, {"lr": image[None]})[0][0]

        found.append(_Form(f"ONNX Runtime, {dtype}", model.scale, upscale, file.stat().st_size))
    return found


def milliseconds(measured: list[_Form]) -> list[float]:
    """Returns the median time of each form for a square image; the forms take turns."""
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    times: list[list[float]] = [[] for _ in measured]
    for each in range(ROUNDS + 1):
        for form, series in zip(measured, times, strict=True):
            start = time.perf_counter()
            form.upscale(image)
            if each:  # the first round compiles
                series.append(1000 * (time.perf_counter() - start))
    return [statistics.median(series) for series in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="+", default=["a2f-sd-x2", "a2f-sd-x4"])
    parser.add_argument("--data", required=True, help="folder with the benchmark set")
    parser.add_argument("--dataset", default="set5")
    parser.add_argument("--table", type=page_with("export"), help="page whose table to update")
    args = parser.parse_args()
    rows = [
        f"| weights | computed by | {args.dataset.title()} | file | {SIDE}×{SIDE} pixels |",
        "|---|---|---|---:|---:|",
    ]
    for weights in args.weights:
        with tempfile.TemporaryDirectory() as folder:
            measured = forms(weights, pathlib.Path(folder))
            for form, time_taken in zip(measured, milliseconds(measured), strict=True):
                (scores,) = a2f_jax.evaluate(form, [args.dataset], data_dir=args.data)
                size = f"{form.size / 1e6:.2f} MB" if form.size else ""
                score = f"{scores['psnr']:.3f} / {scores['ssim']:.4f}"
                rows.append(f"| {weights} | {form.variant} | {score} | {size} | {time_taken:.0f} ms |")
    print("\n".join(rows))
    if args.table:
        write_between(args.table, "export", "\n".join(rows))


if __name__ == "__main__":
    main()
