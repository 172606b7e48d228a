"""Measures the time of a training step (forward pass, backward pass, update), compared with PyTorch.

    pip install '.[torch]'
    python benchmarks/train.py --variants a2f-sd a2f-s --output docs/results/train.json

Both implementations start from the same weights and train on the same random batch of 16 patches of 48×48 LR pixels,
×4. Their rounds alternate, so that other load on the machine affects both, and medians are reported.
"""

import argparse
import json
import pathlib
import platform
import statistics
import sys
import time

import jax
import numpy as np
import optax
import torch
import tqdm

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from torch_peer import TorchA2F

from a2f_jax.models.a2f import VARIANTS, build
from a2f_jax.training.spmd import parallelize
from a2f_jax.training.state import init_state
from a2f_jax.training.step import make_train_step

RATE = 1e-4
ON_GPU = torch.cuda.is_available()


def jax_round(network, params, batch):
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

    def steps(count):
        nonlocal state
        start = time.perf_counter()
        for _ in range(count):
            state, metrics = spmd.step(state, inputs)
        jax.block_until_ready((state, metrics))
        return (time.perf_counter() - start) / count

    return steps, loss, compiling


def torch_round(network, params, batch):
    """Returns a function that times steps of eager PyTorch, in channels-last layout, and the loss of the first step."""
    device = "cuda" if ON_GPU else "cpu"
    model = TorchA2F(network).take(params).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=True)
    lr, hr = (torch.from_numpy(batch[key].astype(np.float32)).permute(0, 3, 1, 2).to(device) for key in ("lr", "hr"))

    def step():
        optimizer.zero_grad()
        loss = (model(lr) - hr).abs().mean()
        loss.backward()
        optimizer.step()
        return loss

    loss = float(step())

    def steps(count):
        if ON_GPU:
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            step()
        if ON_GPU:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / count

    return steps, loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds of each implementation (default: 5)")
    parser.add_argument(
        "--steps", type=int, default=200 if ON_GPU else 2, help="steps per round (default: 200 on a GPU, 2 on a CPU)"
    )
    parser.add_argument("--output", type=pathlib.Path, help="JSON file to write")
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    batch = {
        "lr": rng.integers(0, 256, (16, 48, 48, 3), dtype=np.uint8),
        "hr": rng.integers(0, 256, (16, 192, 192, 3), dtype=np.uint8),
    }
    dtypes = ("float32", "bfloat16") if ON_GPU else ("float32",)
    rows = []
    bar = tqdm.tqdm(total=len(args.variants) * len(dtypes) * args.rounds, unit="round")
    for variant in args.variants:
        for dtype in dtypes:
            network = build(variant, 4, dtype=jax.numpy.dtype(dtype))
            params = jax.device_get(init_state(network, optax.adam(RATE), 0, ema=False).params)
            ours, loss, compiling = jax_round(network, params, batch)
            theirs, their_loss = torch_round(network, params, batch)
            if dtype == "float32" and abs(loss - their_loss) > 1e-4 * their_loss:
                raise SystemExit(
                    f"{variant}: the losses of the first step differ: {loss} (JAX) and {their_loss} (PyTorch)"
                )
            ours(1), theirs(1)
            times = []
            for _ in range(args.rounds):
                times.append((ours(args.steps), theirs(args.steps)))
                bar.update()
            jax_s, torch_s = (statistics.median(column) for column in zip(*times, strict=True))
            ratio = statistics.median(a / b for a, b in times)
            rows.append(
                {
                    "variant": variant,
                    "dtype": dtype,
                    "jax_ms": 1e3 * jax_s,
                    "images_per_second": 16 / jax_s,
                    "torch_float32_ms": 1e3 * torch_s,
                    "ratio": ratio,
                    "compile_s": compiling,
                }
            )
    bar.close()
    device = jax.devices()[0].device_kind if ON_GPU else f"{torch.get_num_threads()} threads of {platform.machine()}"
    print(f"{device}; JAX {jax.__version__}, PyTorch {torch.__version__}; batch 16, 48×48 LR, ×4\n")
    print("| variant | dtype | ms/step | images/s | PyTorch float32 ms/step | JAX / PyTorch | first step, compiled |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for r in rows:
        print(
            f"| {r['variant']} | {r['dtype']} | {r['jax_ms']:.1f} | {r['images_per_second']:.1f} | "
            f"{r['torch_float32_ms']:.1f} | {r['ratio']:.2f} | {r['compile_s']:.1f} s |"
        )
    if args.output:
        about = {"device": device, "jax": jax.__version__, "torch": torch.__version__, "rows": rows}
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
