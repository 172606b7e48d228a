"""Measurements of the report besides benchmark scores: sizes, component weights and running times."""

import functools
import pathlib
import platform
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from a2f_jax.data.sources import sample
from a2f_jax.model import Model, Network
from a2f_jax.models.a2f import A2F, HIDDEN
from a2f_jax.models.convolution import prefers_winograd
from a2f_jax.models.counts import PAPER_OUTPUT, count
from a2f_jax.models.layers import abstract_variables

_PATCH = 240
"""Side of the photograph crops that block weights are measured on, in HR pixels; a multiple of every scale."""

TIMED_OUTPUT = (768, 1024)
"""Height and width of the timed output, in pixels: most images of Urban100 are about this size."""

TIMED_OUTPUT_CPU = (256, 384)
"""The same on a CPU, on which EDSR would take minutes for the larger one. Times are about proportional to pixels."""


def elementwise_work(network: A2F, output: tuple[int, int] = PAPER_OUTPUT) -> int:
    """Counts the elementwise operations that the authors of A2F include in their multi-adds.

    One operation is counted for each value of the residual branch's biases and ReLU, of the projection that channel
    attention averages, and of the biases of head, tail and skip. The slides do not state this rule: it was inferred
    from their numbers, all of which it reproduces to within 0.1 G.

    Args:
      network: the network.
      output: height and width of the output, in pixels.

    Returns:
      The number of operations for one image.
    """
    pixels = (output[0] // network.scale) * (output[1] // network.scale)
    block = HIDDEN + HIDDEN + network.features
    if network.auxiliary and network.attention:
        block += network.features
    return pixels * (network.blocks * block + network.features + 2 * 3 * network.scale**2)


def xla_flops(network: A2F, output: tuple[int, int] = PAPER_OUTPUT) -> float | None:
    """Returns XLA's cost estimate of the compiled network, without running it.

    Args:
      network: the network, which is compiled for inference with direct convolutions, in its own dtype, and with weight
        normalization folded into the kernels.
      output: height and width of the output, in pixels.

    Returns:
      The number of floating-point operations for one image, where a multi-add counts as two; None if the backend
      provides no estimate.
    """
    # Winograd's form takes fewer operations than the convolution that it computes, and than papers count.
    network = network.clone(weight_norm=False, winograd=False)
    height, width = (size // network.scale for size in output)
    lr = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    params = abstract_variables(network, *lr.shape)
    cost = jax.jit(network.apply).lower(params, lr).compile().cost_analysis()
    return cost.get("flops") if cost else None


@functools.cache
def sizes(network: Network) -> dict[str, int]:
    """Counts a network's parameters and its multi-adds for an output of 1280×720.

    Args:
      network: an `A2F`, or one of the networks that it is compared with.

    Returns:
      `{"parameters", "multiply_adds", "with_elementwise"}`: `multiply_adds` are those of convolutions and matrix
      products, `with_elementwise` adds `elementwise_work` for an `A2F`.
    """
    parameters, multiply_adds = count(network)
    return {
        "parameters": parameters,
        "multiply_adds": multiply_adds,
        "with_elementwise": multiply_adds + (elementwise_work(network) if isinstance(network, A2F) else 0),
    }


class BlockWeights(NamedTuple):
    """The three components of every block's output, `λ_x · s + λ_res · res + λ_aux · (a · p)`.

    Attributes:
      weights: the scalar λ of each block, by component: `"x"`, `"res"` and, unless the network lacks it, `"aux"`.
      magnitudes: |λ| times the root mean square of its branch over pixels and channels, structured like `weights`.
    """

    weights: dict[str, list[float]]
    magnitudes: dict[str, list[float]]


def sample_patches(scale: int) -> np.ndarray:
    """Returns LR crops from the center of the sample photographs.

    Args:
      scale: the downscaling factor.

    Returns:
      uint8 RGB `[N, 240 / scale, 240 / scale, 3]`.
    """
    side = _PATCH // scale
    patches = []
    for source in sample()["train"]:
        lr = source.read(scale).lr
        top, left = ((size - side) // 2 for size in lr.shape[:2])
        patches.append(lr[top : top + side, left : left + side])
    return np.stack(patches)


def block_weights(model: Model, images: np.ndarray) -> BlockWeights:
    """Returns the weights of the three components in every block, and their magnitudes on real images.

    Args:
      model: a model whose network is an `A2F`.
      images: LR images, uint8 RGB `[N, H, W, 3]`.
    """
    network = model.inference_network
    captured = ("head", "reduce", "projection", "attention")

    def wanted(module: Any, _: str) -> bool:
        return module.name is not None and (module.name in captured or module.name.startswith("block_"))

    @jax.jit
    def branches(params: Any, lr: jax.Array) -> dict[str, list[jax.Array]]:
        _, found = network.apply({"params": params}, lr, capture_intermediates=wanted, mutable=["intermediates"])
        layers = found["intermediates"]
        rms: dict[str, list[jax.Array]] = {"x": [], "res": [], "aux": []}
        state = layers["head"]["__call__"][0]
        for i in range(network.blocks):
            block = layers[f"block_{i:02d}"]
            parts = {"x": state, "res": block["reduce"]["__call__"][0]}
            if network.auxiliary:
                parts["aux"] = block["projection"]["__call__"][0]
                if network.attention:
                    parts["aux"] *= block["attention"]["__call__"][0][:, None, None, :]
            for name, values in parts.items():
                rms[name].append(jnp.sqrt(jnp.mean(jnp.square(values.astype(jnp.float32)))))
            state = block["__call__"][0]
        return rms

    rms = branches(model.folded, images)
    weights = {
        name: [float(model.params[f"block_{i:02d}"][f"lambda_{name}"]) for i in range(network.blocks)]
        for name in ("x", "res", "aux")
        if rms[name]
    }
    magnitudes = {
        name: [abs(weight) * float(value) for weight, value in zip(values, rms[name], strict=True)]
        for name, values in weights.items()
    }
    return BlockWeights(weights, magnitudes)


def device_name() -> str:
    """Returns the name of JAX's first local device, which computes the report."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    try:  # on Linux, where `platform` does not know the name of the processor
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _is_enough(seconds: Sequence[float]) -> bool:
    count, total = len(seconds), sum(seconds)
    return count >= 50 or (count >= 5 and total >= 2) or (count >= 3 and total >= 20)


def timed_output() -> tuple[int, int]:
    """Returns the height and width of the output that is timed on the device that computes the report, in pixels."""
    return TIMED_OUTPUT_CPU if jax.local_devices()[0].platform == "cpu" else TIMED_OUTPUT


def running_time(network: Network, output: tuple[int, int]) -> float:
    """Measures the time of a forward pass for one image, after compilation and warm-up, without host transfers.

    The time depends only on the shapes, so the weights are random and the image is noise.

    Args:
      network: the network, which computes in its own dtype, with weight normalization folded into the kernels and with
        the form of the convolutions that upscaling uses on the device that runs it, JAX's first local one.
      output: height and width of the output, in pixels.

    Returns:
      The median in seconds over 3 runs, up to 5 while the total stays below 20 seconds, and up to 50 while it stays
      below 2 seconds.
    """
    winograd = prefers_winograd(jax.local_devices()[0].platform, network.dtype)
    options = {"weight_norm": False, "winograd": winograd}
    network = network.clone(**{name: value for name, value in options.items() if hasattr(network, name)})
    height, width = (size // network.scale for size in output)
    lr = jax.random.uniform(jax.random.key(0), (1, height, width, 3), maxval=255.0)
    shapes = abstract_variables(network, *lr.shape)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.05, x.shape), x.dtype), shapes)
    with jax.default_matmul_precision("highest"):  # as in upscaling: accelerators round float32 products otherwise
        run = jax.jit(network.apply).lower(params, lr).compile()
    run(params, lr).block_until_ready()
    seconds: list[float] = []
    while not _is_enough(seconds):
        start = time.perf_counter()
        run(params, lr).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))
