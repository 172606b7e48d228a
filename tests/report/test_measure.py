"""Sizes against the slides, and block weights against the equations of the network."""

import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2f_jax.evaluation.paper import ABLATION, COMPARISON, HEAD_KERNELS
from a2f_jax.model import Model
from a2f_jax.models.a2f import A2F, ABLATIONS, HALF_RANGE, RGB_MEAN, build
from a2f_jax.report import measure

A2F_ROWS = [(scale, row) for scale, rows in COMPARISON.items() for row in rows if row.method.startswith("A2F")]


@pytest.mark.parametrize(("scale", "row"), A2F_ROWS, ids=lambda x: getattr(x, "method", x))
def test_sizes_match_the_slides(scale, row):
    size = measure.sizes(build(row.method.lower(), scale))
    assert round(size["parameters"] / 1e3) == row.parameters
    assert size["multiply_adds"] / 1e9 == pytest.approx(row.multiply_adds, rel=0.015)
    # The slides print one decimal.
    assert size["with_elementwise"] / 1e9 == pytest.approx(row.multiply_adds, abs=0.06)


@pytest.mark.parametrize(("options", "row"), list(zip([*ABLATIONS.values(), {}], ABLATION, strict=True)))
def test_sizes_of_the_ablations_match_the_slides(options, row):
    size = measure.sizes(build("a2f-l", 2, **options))
    assert round(size["parameters"] / 1e3) == row.parameters
    assert size["with_elementwise"] / 1e9 == pytest.approx(row.multiply_adds, abs=0.06)


@pytest.mark.parametrize("row", HEAD_KERNELS, ids=lambda row: row.method)
def test_sizes_of_the_head_kernels_match_the_slides(row):
    parameters = measure.sizes(build("a2f-sd", 4, head_kernel=int(row.method[0])))["parameters"]
    assert parameters / 1e3 == pytest.approx(
        row.parameters, abs=0.1
    )  # the slides truncate some values and round others


def test_xla_counts_a_multiply_add_as_two_operations():
    network = build("a2f-sd", 4)
    flops = measure.xla_flops(network, (256, 256))
    # XLA adds elementwise operations and omits products with the padding.
    assert flops == pytest.approx(2 * measure.count(network, (256, 256)).multiply_adds, rel=0.05)


@pytest.mark.parametrize(("measurement", "winograd"), [(measure.xla_flops, False), (measure.running_time, True)])
def test_measured_programs_compute_in_float32_in_the_form_that_the_report_states(monkeypatch, measurement, winograd):
    ticks = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    networks = []
    compiled = jax.jit
    monkeypatch.setattr(jax, "jit", lambda function, **options: (networks.append(function), compiled(function))[1])
    measurement(A2F(scale=2, features=16, blocks=1), (16, 16))
    (network,) = [function.__self__ for function in networks if isinstance(getattr(function, "__self__", None), A2F)]
    assert (network.dtype, network.weight_norm, network.winograd) == (jnp.float32, False, winograd)  # on a CPU


def convolve(x, p):
    kernel = p["v"] * p["g"] / np.sqrt((p["v"] ** 2).sum((0, 1, 2)))
    return (
        jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) + p["bias"]
    )


def rms(x):
    return float(np.sqrt(np.mean(np.square(x))))


@pytest.mark.parametrize("options", [{}, {"attention": False}, {"auxiliary": False}], ids=str)
@jax.numpy_rank_promotion("allow")  # for the equations below
def test_block_weights_follow_the_equations(random_params, options):
    network = A2F(scale=2, features=4, blocks=2, **options)
    params = random_params(network)
    images = np.random.default_rng(1).integers(0, 256, (2, 9, 8, 3), dtype=np.uint8)
    found = measure.block_weights(Model(network, params), images)

    components = ["x", "res"] if options.get("auxiliary") is False else ["x", "res", "aux"]
    assert list(found.weights) == list(found.magnitudes) == components
    states = [convolve((jnp.float32(images) - RGB_MEAN) / HALF_RANGE, params["head"])]
    for i in range(2):
        p = params[f"block_0{i}"]
        branches = {"x": states[-1]}
        branches["res"] = convolve(jax.nn.relu(convolve(states[-1], p["expand"])), p["reduce"])
        if "aux" in components:
            aux = jnp.concatenate(states, -1) @ p["projection"]["kernel"]
            if "attention" in p:
                squeeze, excite = p["attention"]["squeeze"], p["attention"]["excite"]
                hidden = jax.nn.relu(aux.mean((1, 2)) @ squeeze["kernel"] + squeeze["bias"])
                aux *= jax.nn.sigmoid(hidden @ excite["kernel"] + excite["bias"])[:, None, None]
            branches["aux"] = aux
        terms = {name: p[f"lambda_{name}"] * branch for name, branch in branches.items()}
        for name, term in terms.items():
            assert found.weights[name][i] == pytest.approx(float(p[f"lambda_{name}"]))
            assert found.magnitudes[name][i] == pytest.approx(rms(term), rel=1e-4)
        states.append(sum(terms.values()))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_patches_have_the_same_hr_size_at_every_scale(scale):
    patches = measure.sample_patches(scale)
    assert patches.shape == (6, 240 // scale, 240 // scale, 3)
    assert patches.dtype == np.uint8


def test_running_time_is_the_median(monkeypatch):
    # With this clock, the runs take 1, 2, 3, ... seconds.
    ticks = itertools.chain.from_iterable((run**2, run**2 + run) for run in itertools.count(1))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    assert measure.running_time(A2F(scale=2, features=2, blocks=1), (16, 16)) == 3.0
