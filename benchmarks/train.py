"""Measures the time of a training step (forward pass, backward pass, update), beside PyTorch if it is installed.

    pip install '.[torch]'
    python benchmarks/train.py --variants a2f-sd a2f-s --output docs/results/train.json
    python benchmarks/train.py --batch 16 256 --dtypes float32 bfloat16 --compiled    # on a GPU

All implementations start from the same weights and train on the same random batch of patches of 48×48 LR pixels, ×4.
Their rounds alternate, so that other load on the machine affects all of them, and medians are reported. PyTorch is
eager, in channels-last layout, and multiplies as JAX does by default: in TF32 on GPUs that have it. On a CPU, both
reuse freed memory, as `a2f train` does.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import tqdm
from pages import output_file

from a2f_jax.cli.process import reuse_freed_memory
from a2f_jax.files import format_bytes
from a2f_jax.models.a2f import A2F, VARIANTS, Params, build
from a2f_jax.models.convolution import prefers_winograd
from a2f_jax.training.spmd import parallelize
from a2f_jax.training.state import init_state
from a2f_jax.training.step import make_train_step

reuse_freed_memory()  # before JAX starts threads

RATE = 1e-4
ON_GPU = jax.default_backend() == "gpu"
HAS_TORCH = importlib.util.find_spec("torch") is not None

Steps = Callable[[int], float]
"""Takes a number of steps and returns the seconds per step."""


def jax_round(network: A2F, params: Params, batch: dict[str, np.ndarray]) -> tuple[Steps, float, float]:
    """Returns a function that times steps, the loss of the first step, and the seconds of compilation."""
    optimizer = optax.adam(RATE)
    spmd = parallelize(make_train_step(network, optimizer), "shard_map")
    state = init_state(network, optimizer, 0, ema=False)
    state = spmd.put_state(state.replace(params=params, opt_state=optimizer.init(params)))
    inputs = spmd.put_inputs({key: value[None] for key, value in batch.items()})
    start = time.perf_counter()
    state, metrics = spmd.step(state, inputs)
    loss = float(metrics["loss"][0])
    compiling = time.perf_counter() - start

    def steps(count: int) -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(count):
            state, metrics = spmd.step(state, inputs)
        jax.block_until_ready((state, metrics))
        return (time.perf_counter() - start) / count

    return steps, loss, compiling


def torch_round(
    network: A2F, params: Params, batch: dict[str, np.ndarray], dtype: str, compiled: bool
) -> tuple[Steps, float]:
    """Returns a function that times steps of PyTorch, and the loss of the first step."""
    import torch
    from torch_peer import TorchA2F

    device = "cuda" if ON_GPU else "cpu"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    model = TorchA2F(network).take(params).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=True)
    lr, hr = (torch.from_numpy(batch[key].astype(np.float32)).permute(0, 3, 1, 2).to(device) for key in ("lr", "hr"))
    forward = torch.compile(model) if compiled else model

    def step() -> Any:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = (forward(lr) - hr).abs().mean()
        loss.backward()
        optimizer.step()
        return loss

    loss = float(step())

    def steps(count: int) -> float:
        if ON_GPU:
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            step()
        if ON_GPU:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / count

    return steps, loss


def measure(variant: str, dtype: str, batch_size: int, rounds: int, steps: int, compiled: bool) -> dict[str, Any]:
    """Returns the times of one variant, in milliseconds per step."""
    rng = np.random.default_rng(0)
    batch = {
        "lr": rng.integers(0, 256, (batch_size, 48, 48, 3), dtype=np.uint8),
        "hr": rng.integers(0, 256, (batch_size, 192, 192, 3), dtype=np.uint8),
    }
    # The form of the convolution is that of a training run.
    winograd = prefers_winograd(jax.default_backend(), dtype)
    network = build(variant, 4, dtype=jax.numpy.dtype(dtype), winograd=winograd)
    params = jax.device_get(init_state(network, optax.adam(RATE), 0, ema=False).params)
    ours, loss, compiling = jax_round(network, params, batch)
    candidates = {"jax": ours}
    if HAS_TORCH:
        for name in ("torch", "torch_compiled")[: 1 + compiled]:
            candidates[name], theirs = torch_round(network, params, batch, dtype, name == "torch_compiled")
            # Equal in float32 on a CPU; TF32 and bfloat16 round the products of the first step.
            if abs(loss - theirs) > (1e-2 if ON_GPU or dtype == "bfloat16" else 1e-4) * theirs:
                raise SystemExit(f"{variant}: the losses of the first step differ: {loss} (JAX) and {theirs} ({name})")
    for run in candidates.values():
        run(1)
    times = [{name: run(steps) for name, run in candidates.items()} for _ in range(rounds)]
    median = {name: statistics.median(row[name] for row in times) for name in candidates}
    memory = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {
        "variant": variant,
        "dtype": dtype,
        "batch": batch_size,
        **{f"{name}_ms": 1e3 * seconds for name, seconds in median.items()},
        "images_per_second": batch_size / median["jax"],
        **{
            f"ratio_{name}": statistics.median(row["jax"] / row[name] for row in times)
            for name in candidates
            if name != "jax"
        },
        "compile_s": compiling,
        "peak_bytes": memory,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Formats the rows as a Markdown table; what was not measured is left empty."""

    def cell(row: dict[str, Any], key: str, form: str) -> str:
        return format(row[key], form) if row.get(key) is not None else ""

    lines = [
        "| variant | dtype | batch | ms/step | images/s | PyTorch ms/step | JAX / PyTorch | compiled PyTorch ms/step | "
        "JAX / compiled | first step / s | peak memory so far |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = [
            cell(row, key, form)
            for key, form in (
                ("variant", ""),
                ("dtype", ""),
                ("batch", ""),
                ("jax_ms", ".2f"),
                ("images_per_second", ",.0f"),
                ("torch_ms", ".2f"),
                ("ratio_torch", ".2f"),
                ("torch_compiled_ms", ".2f"),
                ("ratio_torch_compiled", ".2f"),
                ("compile_s", ".1f"),
            )
        ]
        memory = format_bytes(row["peak_bytes"]) if row["peak_bytes"] else ""
        lines.append(f"| {' | '.join([*cells, memory])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--batch", nargs="+", type=int, default=[16], help="patches per step (default: 16)")
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32"])
    parser.add_argument("--compiled", action="store_true", help="also measure torch.compile")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds of each implementation (default: 5)")
    parser.add_argument("--steps", type=int, help="steps per round (default: 2 on a CPU, 1600 / batch on a GPU)")
    parser.add_argument("--output", type=output_file, help="JSON file to write")
    args = parser.parse_args()

    cases = [(v, d, b) for v in args.variants for b in args.batch for d in args.dtypes]
    rows = []
    for variant, dtype, batch_size in tqdm.tqdm(cases, unit="case"):
        steps = args.steps or (max(1, 1600 // batch_size) if ON_GPU else 2)
        rows.append(measure(variant, dtype, batch_size, args.rounds, steps, args.compiled))
        device = jax.devices()[0].device_kind if ON_GPU else f"{jax.default_backend()}, {platform.machine()}"
        about = {"device": device, "jax": jax.__version__, "rows": rows}
        if HAS_TORCH:
            about["torch"] = importlib.metadata.version("torch")
        if args.output:  # after every case, so that a limit of time does not lose the others
            args.output.write_text(json.dumps(about, indent=2) + "\n")
    versions = ", ".join(f"{name} {about[name]}" for name in ("jax", "torch") if name in about)
    print(f"{device}; {versions}; patches of 48×48 LR pixels, ×4\n")
    print(table(rows))


if __name__ == "__main__":
    main()
