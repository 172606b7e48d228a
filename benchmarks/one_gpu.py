"""Checks, times and trains on one GPU, within a given number of minutes.

    python benchmarks/one_gpu.py --output gpu --data-dir datasets --minutes 25
    python benchmarks/one_gpu.py --output gpu --parts agreement timings           # without training
    python benchmarks/one_gpu.py --output rehearsal --rehearse    # the same with tiny settings, anywhere

1. Agreement: updates by pmap and shard_map are compared with each other and with those of the CPU, and so is a
   photograph that the shipped weights upscale whole and in tiles.
2. Timings of training steps and of upscaling, beside PyTorch and torch.compile if PyTorch is installed.
3. Training: what remains of the time is spent on A2F-SD with the images in device memory, from random weights or from
   --init. Its cosine schedule needs the number of steps, which follows from the timings.

Everything is written to the output folder: `summary.md`, and a JSON file for each part. What is already there is not
repeated, and training resumes, so a run that was stopped is resumed by the same command. Timings that were cut short
are not resumed: delete `train.json` or `inference.json` to repeat them.
"""

import argparse
import importlib.util
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
from command import A2F, CONFIGS
from pages import page_with, write_between

from a2f_jax import UserError, load, open_pairs
from a2f_jax.training.warm_start import load_initial

HERE = pathlib.Path(__file__).parent
# The comparison multiplies in full float32, but sums in another order, and the CPU uses Winograd's algorithm, whose
# updates differ by 3e-4 from those of direct convolutions (tests/benchmarks/test_one_gpu.py). Those of an H200 differed
# by 1.6e-3.
TOLERANCE = 5e-3
"""Largest accepted difference of an update from that of the CPU, relative to the largest update of the same array."""

LEVELS = 0.01
"""Largest accepted difference of an upscaled photograph from that of the CPU, in levels of 0..255, before rounding."""

TIMED_FRACTION = 0.35
"""The part of the time after the agreement that is spent on timings, if there is training as well."""

LEAST_SECONDS = 30
"""The shortest training that is started."""

FORMS = ["upscale", "tiles", "jit", *(["pytorch"] if importlib.util.find_spec("torch") else [])]

PARTS = ("agreement", "timings", "training")


class Size(NamedTuple):
    """What distinguishes a real run from a rehearsal."""

    variant: str
    features: int
    blocks: int
    patch_size: int
    train_options: list[str]
    inference_options: list[str]
    batch_size: int
    round_to: int  # the number of steps is a multiple of it, so that all dispatches are equally long: one program
    settings: list[str]


REAL = Size(
    variant="a2f-sd",
    features=16,
    blocks=8,
    patch_size=48,
    # The case that the training is planned with comes first.
    train_options=["--variants", "a2f-sd", "a2f-m", "--batch", "64", "16", "256", "--dtypes", "float32", "bfloat16"],
    inference_options=["--variants", "a2f-sd", "a2f-m", "--rounds", "5", "--forms", *FORMS],
    batch_size=64,
    round_to=400,
    settings=["--config.data.patch_size=48", "--config.steps_per_dispatch=50"],
)
REHEARSAL = Size(
    variant="a2f-s",
    features=32,
    blocks=1,
    patch_size=8,
    train_options=["--variants", "a2f-s", "--batch", "4", "--rounds", "1", "--steps", "1"],
    inference_options=["--variants", "a2f-s", "--rounds", "1", "--forms", "upscale"],
    batch_size=4,
    round_to=4,
    settings=["--config.data.patch_size=8", "--config.validation_images=1"],
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
    # With the seed 0, rounding in JAX 0.12 takes a ReLU to the other side of zero, which changes a gradient by 1 %.
    optimizer, rng, side = optax.sgd(1e-4), np.random.default_rng(2), size.patch_size
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


def upscaled() -> dict[str, np.ndarray]:
    """Returns a photograph, upscaled by the shipped weights in three ways, neither clipped nor rounded."""
    import skimage

    model = load("a2f-sd-x4")
    lr = np.float32(skimage.data.astronaut()[:120, 160:300])
    return {
        "default": model.upscaler().upscale(lr),
        "tiles": model.upscaler(tile=64).upscale(lr),
        "whole": np.asarray(jax.jit(model)(lr[None])[0]),
    }


def compare_upscaled(device: dict[str, np.ndarray], cpu: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns the largest differences in levels of 0..255, between the ways on the device, and from the CPU.

    Args:
      device: what `upscaled` returned on the device.
      cpu: what it returned on the CPU.
    """
    tiles = float(np.max([np.max(np.abs(device[form] - device["whole"])) for form in ("default", "tiles")]))
    from_cpu = float(np.max([np.max(np.abs(device[form] - cpu[form])) for form in cpu]))  # unlike max, keeps a NaN
    return {"tiles_from_whole": tiles, "device_from_cpu": from_cpu, "agree": tiles <= LEVELS and from_cpu <= LEVELS}


def compare(device: dict[str, np.ndarray], cpu: dict[str, np.ndarray], exact: bool) -> dict[str, Any]:
    """Returns the largest relative differences between modes and from the CPU, and whether they are acceptable.

    Args:
      device: what `updates` returned on the device.
      cpu: what it returned on the CPU.
      exact: whether the modes have to give the same bits. On a GPU they need not, because cuDNN's gradients of kernels
        may add in an order that varies, and its algorithms are chosen by timing.
    """

    def difference(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.max(np.abs(a - b)) / max(np.max(np.abs(b)), np.finfo(np.float32).tiny))

    pairs = [(value, device[n.replace("pmap", "shard_map", 1)]) for n, value in device.items() if n.startswith("pmap")]
    modes = float(np.max([difference(*pair) for pair in pairs]))  # unlike max, keeps a NaN
    differences = {name: difference(device[name], cpu[name]) for name in cpu}
    name = max(differences, key=lambda name: np.nan_to_num(differences[name], nan=np.inf))
    worst = differences[name]
    return {
        "pmap_from_shard_map": modes,
        "device_from_cpu": worst,
        "least_equal_parameter": name,
        "tolerance": TOLERANCE,
        "agree": modes <= (0 if exact else TOLERANCE) and worst <= TOLERANCE,
    }


def agreement(size: Size, output: pathlib.Path) -> dict[str, Any]:
    """Compares results of this machine's device with those of its CPU, each computed by a process of its own."""
    processes, files = [], {}
    for platform in ("device", "cpu"):
        files[platform] = output / f"results-{platform}.npz"
        environment = {**os.environ, **({"JAX_PLATFORMS": "cpu"} if platform == "cpu" else {})}
        command = [sys.executable, __file__, "--output", str(output), "--results", str(files[platform])]
        command += ["--rehearse"] if size is REHEARSAL else []
        processes.append(subprocess.Popen(command, env=environment))
    end = time.monotonic() + 600
    try:
        while any(process.poll() is None for process in processes) and not any(p.returncode for p in processes):
            if time.monotonic() > end:
                raise SystemExit("the results of the device or of the CPU took longer than 10 minutes")
            time.sleep(0.2)
    finally:
        for process in processes:
            process.kill()  # what has not ended
            process.wait()
    if any(process.returncode for process in processes):
        raise SystemExit("the results of the device or of the CPU could not be computed: see the error above")
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {"updates": {}, "upscaled": {}}
    for platform, file in files.items():
        with np.load(file) as arrays:
            for kind, by_platform in found.items():
                by_platform[platform] = {n.removeprefix(kind): x for n, x in arrays.items() if n.startswith(kind)}
        file.unlink()
    exact = jax.default_backend() == "cpu"
    return {
        "updates": compare(found["updates"]["device"], found["updates"]["cpu"], exact),
        "upscaled": compare_upscaled(found["upscaled"]["device"], found["upscaled"]["cpu"]),
    }


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


def planned_steps(plan: pathlib.Path, timings: dict[str, Any] | None, size: Size, seconds: float) -> int:
    """Returns the length of the training run, which its cosine schedule needs from the start.

    Args:
      plan: the file that keeps it, so that a run that resumes has the same length.
      timings: what `train.py` wrote, with a row for the batch size of the run in float32.
      size: the size of the run.
      seconds: the time there is.

    Raises:
      SystemExit: that row is missing, or there is too little time.
    """
    if not plan.exists():
        rows = timings["rows"] if timings else []
        case = size.variant, size.batch_size, "float32"
        row = next((r for r in rows if (r["variant"], r["batch"], r["dtype"]) == case), None)
        if row is None:
            raise SystemExit(
                f"there is no timing of {size.variant} with batches of {size.batch_size} to plan the training with: "
                "see the error of train.py above, if there is one, delete train.json, and run the part timings again"
            )
        # The run compiles several steps and the validation.
        seconds -= 2 * row["compile_s"]
        if seconds < LEAST_SECONDS:
            raise SystemExit(
                f"{max(0, seconds):.0f} seconds are left for training, which is too few: pass more --minutes"
            )
        # A tenth is for validation, checkpoints and slower steps.
        steps = int(0.9 * seconds / row["jax_ms"] * 1e3)
        plan.write_text(json.dumps({"steps": max(1, steps // size.round_to) * size.round_to}))
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
        f"--config.batch_size={size.batch_size}",
        f"--config.checkpoint_every={every}",
        f"--config.validate_every={every}",
        f"--config.optimizer.warmup={min(200, steps // 10)}",
        *size.settings,
    ]
    config = f"{CONFIGS}/a2f.py:sd_x4,recipe=long"
    command = [*A2F, "train", "--config", config, "--workdir", str(args.output / "run"), *settings]
    process = subprocess.Popen(command)
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        pass  # the run has received it as well
    return process.wait()  # until it has saved its state


def summary(output: pathlib.Path) -> str:
    """Formats what the output folder holds as Markdown."""

    def read(name: str) -> Any:
        file = output / f"{name}.json"
        return json.loads(file.read_text()) if file.exists() else None

    def verdict(part: dict[str, Any]) -> str:
        return "they agree" if part["agree"] else "THEY DO NOT AGREE"

    lines = []
    if about := read("environment"):
        lines += [f"{about['device']}, JAX {about['jax']}, Python {about['python']}", ""]
    if found := read("agreement"):
        updates, pictures = found["updates"], found["upscaled"]
        lines += [
            f"Updates: pmap and shard_map differ by {updates['pmap_from_shard_map']:.1e}; the device and its CPU by "
            f"{updates['device_from_cpu']:.1e} of the largest update (tolerance {updates['tolerance']:.0e}): "
            f"{verdict(updates)}.",
            "",
            "Upscaled photograph: `Model.upscale`, also in tiles, and `jax.jit(model)` differ by "
            f"{pictures['tiles_from_whole']:.1e} levels of 0..255; the device and its CPU by "
            f"{pictures['device_from_cpu']:.1e} (tolerance {LEVELS:g}): {verdict(pictures)}.",
            "",
        ]
    if timings := read("train"):
        from train import table

        lines += ["Training steps, patches of 48×48 LR pixels, ×4:", "", table(timings["rows"]), ""]
    if inference := read("inference"):
        lines += [
            "Upscaling to 1280×720, from and to host memory in float32: `upscale` is `Model.upscale`, `tiles` the same "
            "in tiles of 256×256, and `jit` a program for this size, all without TF32; `pytorch` uses TF32 on a GPU:",
            "",
            "| variant | form | ms | MP/s |",
            "|---|---|---:|---:|",
        ]
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
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to do (default: everything)")
    parser.add_argument("--dataset", default="sample", help="name of a prepared dataset (default: sample)")
    parser.add_argument("--data-dir", help="folder with the prepared datasets (default: that of `a2f data prepare`)")
    parser.add_argument("--init", default="", help="weights to start from, such as a2f-sd-x4 (default: random)")
    parser.add_argument(
        "--table", type=page_with("one-gpu"), help="Markdown file that receives the results between its markers"
    )
    parser.add_argument("--rehearse", action="store_true", help="use tiny settings, to test the script")
    parser.add_argument("--results", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    size = REHEARSAL if args.rehearse else REAL
    if args.results:
        parts = {"updates": updates(size), "upscaled": upscaled()}
        np.savez(args.results, **{kind + name: x for kind, arrays in parts.items() for name, x in arrays.items()})
        return

    minutes = args.minutes if args.minutes is not None else 2 if args.rehearse else 25
    if minutes <= 0:
        parser.error(f"--minutes {minutes:g} leaves no time: pass a positive number")
    if args.output.exists() and not args.output.is_dir():
        parser.error(f"{args.output} is not a folder: choose another --output")
    # Several processes share the device one after another, PyTorch's among them.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if "training" in args.parts:
        try:
            check_training(args.dataset, args.data_dir, args.init)
        except UserError as error:
            parser.error(str(error))
    end = time.monotonic() + 60 * minutes
    args.output.mkdir(parents=True, exist_ok=True)

    def store(name: str, value: Any) -> None:
        (args.output / f"{name}.json").write_text(json.dumps(value, indent=2) + "\n")

    def summarize() -> None:
        (args.output / "summary.md").write_text(f"# One GPU\n\n{summary(args.output)}")

    device = jax.devices()[0]
    if not (args.output / "environment.json").exists():
        python = sys.version.split()[0]
        store("environment", {"device": device.device_kind, "jax": jax.__version__, "python": python})
    summarize()
    if "agreement" in args.parts and not (args.output / "agreement.json").exists():
        store("agreement", agreement(size, args.output))
        summarize()
    if "timings" in args.parts:
        share = 1.0 if "training" not in args.parts else TIMED_FRACTION
        limit = max(0.0, share * (end - time.monotonic()) / 2)
        compiled = ["--compiled"] if device.platform == "gpu" else []
        run_benchmark("train.py", [*size.train_options, *compiled], args.output / "train.json", limit)
        run_benchmark("inference.py", size.inference_options, args.output / "inference.json", limit)
    code = 0
    if "training" in args.parts:
        file = args.output / "train.json"
        remaining = end - time.monotonic() - 10
        timings = json.loads(file.read_text()) if file.exists() else None
        steps = planned_steps(args.output / "plan.json", timings, size, remaining)
        code = train(args, size, steps, max(1.0, remaining))
    summarize()
    if args.table:
        write_between(args.table, "one-gpu", summary(args.output).strip())
    print((args.output / "summary.md").read_text())
    file = args.output / "agreement.json"
    agree = not file.exists() or all(part["agree"] for part in json.loads(file.read_text()).values())
    sys.exit(code or (0 if agree else 1))


if __name__ == "__main__":
    main()
