"""Checks, times and trains on one GPU, within a given number of minutes.

    python benchmarks/one_gpu.py --output gpu --data-dir datasets --minutes 25
    python benchmarks/one_gpu.py --output rehearsal --rehearse    # the same with tiny settings, anywhere

1. Agreement: updates by pmap and shard_map are compared with each other and with those of the CPU.
2. Time of training steps and of upscaling, beside PyTorch and torch.compile if PyTorch is installed.
3. What remains of the time is spent on training A2F-SD ×4 with the images in device memory, from random weights or
   from --init.

Everything is written to the output folder: `summary.md`, and a JSON file for each part. What is already there is not
repeated, and training resumes, so a run that was stopped is resumed by the same command.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from a2f_jax import UserError, open_pairs
from a2f_jax.training.warm_start import load_initial

HERE = pathlib.Path(__file__).parent
# The comparison multiplies in full float32, but sums in another order, and the CPU uses Winograd's algorithm, whose
# updates differ by 3e-4 from those of direct convolutions (tests/benchmarks/test_one_gpu.py).
TOLERANCE = 2e-3
"""Largest accepted difference of an update from that of the CPU, relative to the largest update of the same array."""

TIMED_FRACTION = 0.35
"""The largest part of the time that is spent on checks and timings."""


class Size(NamedTuple):
    """What distinguishes a real run from a rehearsal."""

    features: int
    blocks: int
    patch_size: int
    train_options: list[str]
    inference_options: list[str]
    settings: list[str]


REAL = Size(
    features=16,  # A2F-SD
    blocks=8,
    patch_size=48,
    train_options=["--variants", "a2f-sd", "a2f-m", "--batch", "16", "256", "--dtypes", "float32", "bfloat16"],
    inference_options=["--variants", "a2f-sd", "a2f-m", "--rounds", "5"],
    settings=["--config.batch_size=64", "--config.data.patch_size=48", "--config.steps_per_dispatch=50"],
)
REHEARSAL = Size(
    features=32,
    blocks=1,
    patch_size=8,
    train_options=["--variants", "a2f-s", "--batch", "1", "--rounds", "1", "--steps", "1"],
    inference_options=["--variants", "a2f-s", "--rounds", "1", "--forms", "tiles"],
    settings=["--config.batch_size=4", "--config.data.patch_size=8", "--config.validation_images=1"],
)


def updates(size: Size) -> dict[str, np.ndarray]:
    """Returns the changes of all parameters after two updates by gradient descent, for pmap and shard_map.

    Gradient descent, because Adam divides small gradients by their own size, which enlarges differences of rounding.
    """
    import optax

    from a2f_jax.models.a2f import A2F
    from a2f_jax.models.convolution import prefers_winograd
    from a2f_jax.training.spmd import parallelize
    from a2f_jax.training.state import init_state
    from a2f_jax.training.step import make_train_step

    winograd = prefers_winograd(jax.default_backend(), "float32")
    network = A2F(scale=4, features=size.features, blocks=size.blocks, winograd=winograd)
    optimizer, rng, side = optax.sgd(1e-4), np.random.default_rng(0), size.patch_size
    hr = rng.integers(0, 256, (1, 8, 4 * side, 4 * side, 3), np.uint8)
    batch = {"lr": hr[:, :, ::4, ::4], "hr": hr}

    def draw(x: jax.Array) -> np.ndarray:  # by NumPy: what JAX's fast generators draw depends on the device
        return np.float32(rng.normal(0, np.prod(x.shape[:-1]) ** -0.5, x.shape) if x.ndim > 1 else rng.random(x.shape))

    start = init_state(network, optimizer, 0, ema=False)
    params = jax.tree.map(draw, start.params)
    start = jax.device_get(start.replace(params=params, opt_state=optimizer.init(params)))
    changes = {}
    with jax.default_matmul_precision("highest"):
        for mode in ("pmap", "shard_map"):
            spmd = parallelize(make_train_step(network, optimizer), mode)
            state = spmd.put_state(start)
            for _ in range(2):
                state, _ = spmd.step(state, spmd.put_inputs(batch))
            after = jax.device_get(spmd.get_state(state).params)
            flat, _ = jax.tree_util.tree_flatten_with_path(jax.tree.map(np.subtract, after, params))
            changes |= {mode + jax.tree_util.keystr(path): value for path, value in flat}
    return changes


def compare(device: dict[str, np.ndarray], cpu: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns the largest relative differences between modes and from the CPU, and whether they are acceptable.

    Args:
      device: what `updates` returned on the device.
      cpu: what it returned on the CPU.
    """

    def difference(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.max(np.abs(a - b)) / max(np.max(np.abs(b)), np.finfo(np.float32).tiny))

    modes = max(
        difference(value, device[name.replace("pmap", "shard_map", 1)])
        for name, value in device.items()
        if name.startswith("pmap")
    )
    name, worst = max(((name, difference(device[name], cpu[name])) for name in cpu), key=lambda pair: pair[1])
    return {
        "pmap_from_shard_map": modes,
        "device_from_cpu": worst,
        "least_equal_parameter": name,
        "tolerance": TOLERANCE,
        "agree": modes == 0 and worst <= TOLERANCE,
    }


def agreement(size: Size, output: pathlib.Path) -> dict[str, Any]:
    """Compares updates on this machine's device with those of its CPU, each computed by a process of its own."""
    found = {}
    for platform in ("device", "cpu"):
        file = output / f"updates-{platform}.npz"
        environment = {**os.environ, **({"JAX_PLATFORMS": "cpu"} if platform == "cpu" else {})}
        command = [sys.executable, __file__, "--output", str(output), "--updates", str(file)]
        subprocess.run(
            [*command, *(["--rehearse"] if size is REHEARSAL else [])], check=True, env=environment, timeout=600
        )
        with np.load(file) as arrays:
            found[platform] = dict(arrays)
        file.unlink()
    return compare(found["device"], found["cpu"])


def run_benchmark(script: str, options: list[str], file: pathlib.Path, seconds: float) -> None:
    """Runs another benchmark, which writes `file` case by case, for a limited time."""
    if file.exists():
        return
    command = [sys.executable, str(HERE / script), *options, "--output", str(file)]
    try:
        subprocess.run(command, check=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        print(f"{script} reached its limit of {seconds:.0f} s; what it measured so far is kept", file=sys.stderr)
    except subprocess.CalledProcessError as error:
        print(f"{script} failed with exit code {error.returncode}; going on without it", file=sys.stderr)


def check_training(dataset: str, data_dir: str | None, init: str) -> None:
    """Checks the inputs of the training run, which begins only after the timings.

    Raises:
      UserError: the dataset or the weights cannot be used.
    """
    for split in ("train", "validation"):
        open_pairs(dataset, scale=4, split=split, data_dir=data_dir)
    if init:
        load_initial(init, 4)


def planned_steps(plan: pathlib.Path, timings: dict[str, Any], batch_size: int, seconds: float) -> int:
    """Returns the length of the training run, which its cosine schedule needs from the start.

    Args:
      plan: the file that keeps it, so that a run that resumes has the same length.
      timings: what `train.py` wrote.
      batch_size: the number of patches per step.
      seconds: the time there is.
    """
    if not plan.exists():
        per_patch = min(row["jax_ms"] / row["batch"] for row in timings["rows"] if row["dtype"] == "float32") / 1e3
        # A tenth for compiling, validation and checkpoints, another for steps that are slower than alone.
        plan.write_text(json.dumps({"steps": max(10, int(0.8 * seconds / (per_patch * batch_size)))}))
    return json.loads(plan.read_text())["steps"]


def train(args: argparse.Namespace, size: Size, steps: int, seconds: float) -> int:
    """Trains for a limited time, and returns the exit code of `a2f train`: 0 if done, 75 if it can be resumed."""
    every = max(1, min(5000, steps // 4))
    settings = [
        "--config.data.placement=device",
        f"--config.data.name={args.dataset}",
        f"--config.data.dir={args.data_dir or ''}",
        f"--config.init={args.init}",
        f"--config.steps={steps}",
        f"--config.checkpoint_every={every}",
        f"--config.validate_every={every}",
        "--config.optimizer.name=muon",
        "--config.optimizer.learning_rate=2e-2",
        f"--config.optimizer.warmup={min(200, steps // 10)}",
        *size.settings,
    ]
    config = HERE.parent / "configs/a2f.py:sd_x4,recipe=long"
    start = [sys.executable, "-c", "from a2f_jax.cli import main; main()"]  # where no `a2f` is on the path
    command = [*start, "train", "--config", str(config), "--workdir", str(args.output / "run"), *settings]
    process = subprocess.Popen(command)
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)  # saves the state
        return process.wait(timeout=120)


def summary(output: pathlib.Path) -> str:
    """Formats what the output folder holds as Markdown."""

    def read(name: str) -> Any:
        file = output / f"{name}.json"
        return json.loads(file.read_text()) if file.exists() else None

    lines = []
    if about := read("environment"):
        lines += ["# One GPU", "", ", ".join(f"{key} {value}" for key, value in about.items()), ""]
    if found := read("agreement"):
        lines += [
            f"pmap and shard_map differ by {found['pmap_from_shard_map']:.1e}; the device and its CPU by "
            f"{found['device_from_cpu']:.1e} of the largest update (tolerance {found['tolerance']:.0e}): "
            f"{'they agree' if found['agree'] else 'THEY DO NOT AGREE'}.",
            "",
        ]
    if timings := read("train"):
        from train import table

        lines += ["Training steps, patches of 48×48 LR pixels, ×4:", "", table(timings["rows"]), ""]
    if inference := read("inference"):
        lines += ["Upscaling to 1280×720:", "", "| variant | form | ms | MP/s |", "|---|---|---:|---:|"]
        lines += [f"| {r['variant']} | {r['form']} | {r['ms']:.1f} | {r['megapixels_per_s']:.1f} |" for r in inference]
        lines.append("")
    if (metrics := output / "run/metrics.jsonl").exists():
        rows = [json.loads(line) for line in metrics.read_text().splitlines()]
        scores = [row for row in rows if row["kind"] == "validation"]
        lines += ["Training A2F-SD ×4:", "", "| step | validation PSNR |", "|---:|---:|"]
        lines += [f"| {row['step']:,} | {row['psnr']:.3f} |" for row in scores]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=pathlib.Path, help="folder for all results")
    parser.add_argument("--minutes", type=float, help="time for everything (default: 25, or 2 with --rehearse)")
    parser.add_argument("--dataset", default="sample", help="name of a prepared dataset (default: sample)")
    parser.add_argument("--data-dir", help="folder with the prepared datasets (default: that of `a2f data prepare`)")
    parser.add_argument("--init", default="", help="weights to start from, such as a2f-sd-x4 (default: random)")
    parser.add_argument("--rehearse", action="store_true", help="use tiny settings, to test the script")
    parser.add_argument("--updates", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    size = REHEARSAL if args.rehearse else REAL
    if args.updates:
        np.savez(args.updates, **updates(size))
        return

    minutes = args.minutes if args.minutes is not None else 2 if args.rehearse else 25
    if minutes <= 0:
        parser.error(f"--minutes {minutes:g} leaves no time: pass a positive number")
    if args.output.exists() and not args.output.is_dir():
        parser.error(f"{args.output} is not a folder: choose another --output")
    # Several processes share the device one after another, PyTorch's among them.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    try:
        check_training(args.dataset, args.data_dir, args.init)
    except UserError as error:
        parser.error(str(error))
    end = time.monotonic() + 60 * minutes
    args.output.mkdir(parents=True, exist_ok=True)

    def store(name: str, value: Any) -> None:
        (args.output / f"{name}.json").write_text(json.dumps(value, indent=2) + "\n")
        (args.output / "summary.md").write_text(summary(args.output))

    device = jax.devices()[0]
    store("environment", {"device": device.device_kind, "JAX": jax.__version__, "Python": sys.version.split()[0]})
    if not (args.output / "agreement.json").exists():
        store("agreement", agreement(size, args.output))
    limit = 60 * minutes * TIMED_FRACTION / 2
    compiled = ["--compiled"] if device.platform == "gpu" else []
    run_benchmark("train.py", [*size.train_options, *compiled], args.output / "train.json", limit)
    run_benchmark("inference.py", size.inference_options, args.output / "inference.json", limit)
    (args.output / "summary.md").write_text(summary(args.output))

    timings = json.loads((args.output / "train.json").read_text())
    batch_size = int(next(s for s in size.settings if s.startswith("--config.batch_size=")).partition("=")[2])
    remaining = end - time.monotonic() - 10
    steps = planned_steps(args.output / "plan.json", timings, batch_size, remaining)
    code = train(args, size, steps, max(1.0, remaining))
    (args.output / "summary.md").write_text(summary(args.output))
    print((args.output / "summary.md").read_text())
    agree = json.loads((args.output / "agreement.json").read_text())["agree"]
    sys.exit(code or (0 if agree else 1))


if __name__ == "__main__":
    main()
