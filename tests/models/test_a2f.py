"""The network compared with an independent implementation of its equations and with published counts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2f_jax.models.a2f import A2F, HALF_RANGE, RGB_MEAN, build, infer_network
from a2f_jax.models.counts import count

# Published by the paper's authors, including the gains of weight normalization.
PARAMETERS = {
    ("a2f-s", 4): 331_132,
    ("a2f-sd", 4): 319_672,
    ("a2f-m", 4): 1_010_068,
    ("a2f-l", 4): 1_374_112,
    ("a2f-s", 2): 319_648,
    ("a2f-sd", 2): 313_372,
    ("a2f-m", 2): 998_584,
    ("a2f-l", 2): 1_362_628,
    ("a2f-s", 3): 324_433,
    ("a2f-sd", 3): 315_997,
    ("a2f-m", 3): 1_003_369,
}


def conv(x, p):
    """Computes a weight-normalized convolution as a sum over shifted images, in float64."""
    v, g, bias = (np.asarray(p[k], np.float64) for k in ("v", "g", "bias"))
    kernel = g * v / np.sqrt((v**2).sum((0, 1, 2)))
    k = v.shape[0]
    padded = np.pad(x, ((k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    h, w = x.shape[:2]
    return bias + sum(padded[i : i + h, j : j + w] @ kernel[i, j] for i, j in itertools.product(range(k), repeat=2))


def depthwise(x, kernel):
    h, w = x.shape[:2]
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    taps = itertools.product(range(3), repeat=2)
    return sum(padded[i : i + h, j : j + w] * np.asarray(kernel[i, j, 0], np.float64) for i, j in taps)


def dense(x, p):
    return x @ np.asarray(p["kernel"], np.float64) + np.asarray(p.get("bias", 0.0), np.float64)


def shuffle(x, s):
    h, w, c = x.shape
    out = np.empty((h * s, w * s, c // s**2))
    for color, dy, dx in itertools.product(range(c // s**2), range(s), range(s)):
        out[dy::s, dx::s, color] = x[..., (color * s + dy) * s + dx]
    return out


def reference(params, lr, scale):
    """Computes the equations of the paper for one image, with NumPy in float64."""
    x = (lr.astype(np.float64) - RGB_MEAN) / HALF_RANGE
    states = [conv(x, params["head"])]
    for name in sorted(k for k in params if k.startswith("block")):
        b = params[name]
        s = states[-1]
        out = b["lambda_x"] * s + b["lambda_res"] * conv(np.maximum(conv(s, b["expand"]), 0), b["reduce"])
        if "projection" in b:
            concatenated = np.concatenate(states, -1)
            if "depthwise" in b:
                concatenated = depthwise(concatenated, b["depthwise"]["kernel"])
            p = dense(concatenated, b["projection"])
            if "attention" in b:
                hidden = np.maximum(dense(p.mean((0, 1)), b["attention"]["squeeze"]), 0)
                p = p / (1 + np.exp(-dense(hidden, b["attention"]["excite"])))
            out = out + b["lambda_aux"] * p
        states.append(out)
    sr = shuffle(conv(states[-1], params["tail"]), scale) + shuffle(conv(x, params["skip"]), scale)
    return sr * HALF_RANGE + RGB_MEAN


@pytest.mark.parametrize(
    "options",
    [
        {"scale": 2},
        {"scale": 3, "head_kernel": 1},
        {"scale": 4, "head_kernel": 5},
        {"scale": 2, "head_kernel": 7, "attention": False},
        {"scale": 2, "auxiliary": False},
        {"scale": 2, "attention": False, "depthwise": True},
    ],
)
def test_network_computes_the_papers_equations(options, random_params):
    network = A2F(features=16, blocks=2, **options)
    params = random_params(network)
    lr = np.random.default_rng(0).integers(0, 256, (9, 11, 3))
    ours = jax.jit(network.apply)({"params": params}, lr[None])[0]
    # In 0..255, where adjacent float32 values are up to 1.5e-5 apart.
    np.testing.assert_allclose(ours, reference(params, lr, network.scale), atol=1e-3)


@pytest.mark.parametrize(("variant", "scale"), PARAMETERS)
def test_variants_have_the_published_number_of_parameters(variant, scale):
    assert count(build(variant, scale), (8, 8)).parameters == PARAMETERS[variant, scale]


@pytest.mark.parametrize(("kernel", "thousands"), [(1, 319.2), (3, 319.6), (5, 320.4), (7, 321.6)])
def test_head_kernels_have_the_published_number_of_parameters(kernel, thousands):
    parameters = count(build("a2f-sd", 4, head_kernel=kernel), (8, 8)).parameters
    assert parameters / 1000 == pytest.approx(thousands, abs=0.1)  # the paper rounds some and truncates others


@pytest.mark.parametrize(
    ("options", "thousands"), [({"auxiliary": False}, 1190), ({"attention": False}, 1329), ({}, 1363)]
)
def test_ablations_have_the_published_number_of_parameters(options, thousands):
    assert round(count(build("a2f-l", 2, **options), (8, 8)).parameters / 1000) == thousands


def test_bfloat16_is_close_to_float32_and_keeps_float32_parameters_and_output(random_params):
    network = A2F(scale=2, features=16, blocks=2)
    params = random_params(network)
    lr = np.random.default_rng(0).integers(0, 256, (1, 12, 12, 3))
    exact = np.asarray(network.apply({"params": params}, lr))
    near = network.clone(dtype=jnp.bfloat16).apply({"params": params}, lr)
    assert near.dtype == jnp.float32
    # bfloat16 has 8 bits of precision: errors of a few gray levels, not of tens.
    assert 0 < np.abs(near - exact).max() < 0.05 * np.abs(exact - RGB_MEAN).max()


@pytest.mark.parametrize("pack", [1, 4])
def test_the_skip_connection_is_as_precise_in_bfloat16(random_params, pack):
    network = A2F(scale=2, features=16, blocks=1, pack=pack)
    params = random_params(network)
    params["tail"] = jax.tree.map(np.zeros_like, params["tail"])
    params["tail"]["v"] = np.ones_like(params["tail"]["v"])
    lr = np.random.default_rng(0).integers(0, 256, (1, 12, 12, 3))
    exact, half = (network.clone(dtype=dtype).apply({"params": params}, lr) for dtype in (jnp.float32, jnp.bfloat16))
    np.testing.assert_allclose(half, exact, rtol=0, atol=1e-3)


def test_an_even_kernel_of_the_head_is_refused_before_it_is_trained(random_params):
    with pytest.raises(ValueError, match="the kernel of the head has the size 4, but must be odd"):
        A2F(scale=2, features=8, blocks=1, head_kernel=4).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    params = random_params(A2F(scale=2, features=8, blocks=1))
    params["head"]["v"] = np.zeros((2, 2, 3, 8), np.float32)
    with pytest.raises(ValueError, match="the kernel of the head has the size 2, but must be odd"):
        infer_network(params)


@pytest.mark.parametrize(("variant", "scale"), [("a2f-xl", 4), ("a2f-s", 5)])
def test_unknown_networks_are_refused_by_name(variant, scale):
    with pytest.raises(ValueError, match="choose one of"):
        build(variant, scale)
