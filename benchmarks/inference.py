"""Measures time, throughput and memory of upscaling to 1280×720, compared with PyTorch and the peak of the machine.

    pip install -e '.[torch]'
    python benchmarks/inference.py
    python benchmarks/inference.py --variants a2f-sd --rounds 15

`upscale` is `Model.upscale`, `tiles` is the same in tiles of 256×256 pixels, and `jit` is `jax.jit(model)`, a program
for one size. The weights are random, since the time does not depend on them. The candidates take turns, round after
round, so that other load on the machine affects all of them equally. Each candidate runs in a process of its own,
because thread pools that share a process slow each other down. The table, which includes the largest difference between
the outputs, is printed to standard output, and the numbers are written to a JSON file.
"""

import argparse
import functools
import importlib.util
import json
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from pages import output_file

ROWS, COLUMNS = 720, 1280


def _image(scale: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (ROWS // scale, COLUMNS // scale, 3), np.uint8)


def _model(variant: str, scale: int):
    # NumPy draws the weights: compiling the actual initialization takes longer than the measurement.
    import jax

    from a2f_jax.model import Model
    from a2f_jax.models.a2f import build

    network, rng = build(variant, scale), np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, 8, 8, 3)))["params"]

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        fan_in = float(np.prod(shape[:-1])) if len(shape) > 1 else 1.0
        return np.float32(rng.normal(0 if len(shape) > 1 else 0.5, fan_in**-0.5 / 4, shape))

    return Model.from_params(jax.tree.map(lambda x: draw(x.shape), shapes))


def _upscale(variant: str, scale: int, tile: int | None = None) -> Callable[[], np.ndarray]:
    upscaler, image = _model(variant, scale).upscaler(tile=tile), _image(scale).astype(np.float32)
    return lambda: upscaler.upscale(image)


def _jit(variant: str, scale: int) -> Callable[[], np.ndarray]:
    import jax

    network, image = jax.jit(_model(variant, scale)), _image(scale)[None].astype(np.float32)
    return lambda: np.asarray(network(image)[0])


def _pytorch(variant: str, scale: int, compiled: bool = False) -> Callable[[], np.ndarray]:
    import torch
    from torch_peer import TorchA2F

    model, image = _model(variant, scale), _image(scale)[None].astype(np.float32)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = TorchA2F(model.network).take(model.params)
    for module in list(network.modules()):
        if hasattr(module, "parametrizations"):
            torch.nn.utils.parametrize.remove_parametrizations(module, "weight")
    network = network.to(device, memory_format=torch.channels_last).eval()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True  # as JAX does by default
    torch.backends.cudnn.benchmark = True
    if compiled:
        network = torch.compile(network)
    lr = torch.from_numpy(image).permute(0, 3, 1, 2).to(device, memory_format=torch.channels_last)

    def run() -> np.ndarray:
        with torch.inference_mode():
            return network(lr)[0].permute(1, 2, 0).cpu().numpy()

    return run


def _product(library: str, size: int = 1024) -> Callable[[], Any]:
    # A square matrix product, 2 · size³ operations, stands for the peak performance of the machine.
    if library == "pytorch":
        import torch

        a = torch.ones(size, size)
        return lambda: a @ a
    import jax

    a, product = np.ones((size, size), np.float32), jax.jit(lambda x: x @ x)
    return lambda: product(a).block_until_ready()


_FORMS = {
    "upscale": _upscale,
    "tiles": functools.partial(_upscale, tile=256),
    "jit": _jit,
    "pytorch-compiled": functools.partial(_pytorch, compiled=True),
    "pytorch": _pytorch,
}


def _serve(form: str, variant: str, scale: int, connection) -> None:
    # Runs a candidate once for every message, and replies with the wall and processor time in seconds.
    run = _product(variant) if form == "product" else _FORMS[form](variant, scale)
    first = time.perf_counter()
    output = run()
    first = time.perf_counter() - first
    run()
    connection.send((first, output if form in _FORMS else None))
    while connection.recv():
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        connection.send((time.perf_counter() - wall, time.process_time() - cpu))
    connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)


def _measure(candidates: dict[str, tuple[str, str, int]], rounds: int) -> dict[str, dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    pipes, processes, results = {}, {}, {}
    for name, arguments in candidates.items():
        pipes[name], theirs = context.Pipe()
        processes[name] = context.Process(target=_serve, args=(*arguments, theirs), daemon=True)
        processes[name].start()
        theirs.close()
        results[name] = dict(zip(("first", "output"), pipes[name].recv(), strict=True), wall=[], cpu=[])
    for _ in range(rounds):
        for name, pipe in pipes.items():
            pipe.send(True)
            wall, cpu = pipe.recv()
            results[name]["wall"].append(wall)
            results[name]["cpu"].append(cpu)
    for name, pipe in pipes.items():
        pipe.send(False)
        results[name]["memory"] = pipe.recv()
        processes[name].join()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=["a2f-s", "a2f-sd", "a2f-m", "a2f-l"])
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    default = ["upscale", "jit", *(["pytorch"] if importlib.util.find_spec("torch") else [])]
    parser.add_argument("--forms", nargs="+", choices=_FORMS, default=default, help=f"(default: {' '.join(default)})")
    parser.add_argument("--output", type=output_file, default="inference.json")
    args = parser.parse_args()
    # Threads that spin while they wait would slow down the candidate that is measured next.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from a2f_jax.models.a2f import build
    from a2f_jax.models.counts import count

    columns = ("variant", "form", "ms", "fastest", "processor ms", "MP/s", "of the peak", "MB", "largest difference")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    record = []
    for variant in args.variants:
        forms = {form: (form, variant, args.scale) for form in args.forms}
        results = _measure({**forms, "peak": ("product", "jax", 0)}, args.rounds)
        peak = 2 * 1024**3 / min(results.pop("peak")["wall"])
        want = results[args.forms[-1]]["output"]
        operations = 2 * count(build(variant, args.scale), (ROWS, COLUMNS)).multiply_adds
        for form, result in results.items():
            wall, cpu = (statistics.median(result[key]) for key in ("wall", "cpu"))
            entry = {
                "variant": variant,
                "scale": args.scale,
                "form": form,
                "ms": wall * 1e3,
                "fastest_ms": min(result["wall"]) * 1e3,
                "processor_ms": cpu * 1e3,
                "first_ms": result["first"] * 1e3,
                "megapixels_per_s": ROWS * COLUMNS / wall / 1e6,
                "fraction_of_peak": operations / min(result["wall"]) / peak,
                "memory_mb": result["memory"] / 2**20,
                "largest_difference": float(np.abs(result["output"] - want).max()),
            }
            record.append(entry)
            print(
                f"| {variant} | {form} | {entry['ms']:.0f} | {entry['fastest_ms']:.0f} | {entry['processor_ms']:.0f} | "
                f"{entry['megapixels_per_s']:.2f} | {entry['fraction_of_peak']:.0%} | {entry['memory_mb']:.0f} | "
                f"{entry['largest_difference']:.1e} |",
                flush=True,
            )
        args.output.write_text(json.dumps(record, indent=2))  # so that a limit of time does not lose it


if __name__ == "__main__":
    main()
