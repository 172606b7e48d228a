"""How far networks look, against sums over their layers."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2f_jax.models.a2f import A2F
from a2f_jax.models.peer_layers import PlainConv, resize_bilinear
from a2f_jax.models.receptive_field import reach
from a2f_jax.models.registry import PEERS


@pytest.mark.parametrize(
    ("name", "scale", "pixels"),
    [
        ("srmdnf", 2, 12),  # as many 3×3 convolutions
        # 5×5, four 3×3, and the transposed 9×9, of which 4 pixels of SR are cut off: nearly 2 of LR.
        ("fsrcnn", 3, 2 + 4 + 2),
        # Head, seven units of up, down, and up, and six of down, up, and down. An 8×8 convolution with the stride 4
        # reaches half a pixel beyond its own, so down and up reach one together, and the last one up one more.
        ("d-dbpn", 4, 1 + (7 * 3 + 6 * 3 - 1) // 2 + 1),
        ("awsrn-sd", 4, 1 + 8 * 2 + 1 + 4),  # head, eight units, their fusion, the 9×9 of the tail
    ],
)
def test_the_reach_is_the_sum_over_the_layers(name, scale, pixels):
    assert reach(PEERS[name].make(scale)) == pixels


def test_a_network_reaches_as_far_in_bfloat16():
    assert reach(PEERS["fsrcnn"].make(2).clone(dtype=jnp.bfloat16)) == 8


def test_attention_looks_at_the_whole_image_and_a_network_without_it_does_not():
    network = A2F(scale=2, features=4, blocks=2)
    assert reach(network) is None
    assert reach(network.clone(attention=False)) == 1 + 2 * 2 + 1  # head, blocks, tail


class Strided(nn.Module):
    """A network that looks 3 pixels far, but on a grid of 2."""

    scale = 1

    @nn.compact
    def __call__(self, lr):
        half = PlainConv(3, stride=2)(lr)
        return resize_bilinear(half, *lr.shape[1:3])


class Gated(nn.Module):
    """A network whose last convolution sees only what a comparison has let through."""

    scale = 1
    gate: Callable

    @nn.compact
    def __call__(self, lr):
        h = PlainConv(4)(lr)
        return PlainConv(3)(h + PlainConv(4, kernel_size=5)(self.gate(h)))


@jax.custom_vjp
def step(h):
    return (h > 0).astype(h.dtype)


step.defvjp(lambda h: (step(h), None), lambda _, g: (g,))  # a straight-through estimator


@pytest.mark.parametrize(
    "gate",
    [
        step,
        jax.checkpoint(lambda h: h * (h > 0)),
        lambda h: jnp.where(h > 0, h, 0),
        lambda h: (h > 0).astype(h.dtype),
        lambda h: h * ~(h < 0.5),
        jnp.nan_to_num,
        lambda h: jnp.round(h).astype(jnp.int32).astype(h.dtype),
        lambda h: jnp.where((h > 0).any(-1, keepdims=True), 1.0, 2.0) + 0 * h,
        lambda h: jnp.zeros_like(h).at[:, ::2].add(h[:, ::2]).at[:, 1::2].add(h[:, 1::2]).at[:].max(-h),
        lambda h: jax.lax.reduce(h[..., None], -jnp.inf, lambda a, b: jnp.maximum(a, 2 * b), (4,)),
        lambda h: jnp.pad(h > 0, ((0, 0), (1, 1), (0, 0), (0, 0)))[:, 1:-1].astype(h.dtype),
        nn.leaky_relu,
        nn.elu,
        nn.gelu,
        nn.softplus,
    ],
)
def test_what_a_comparison_or_an_integer_depends_on_counts(gate):
    assert reach(Gated(gate)) == 1 + 2 + 1


@pytest.mark.parametrize(
    "gate",
    [
        lambda h: jax.lax.population_count(h.astype(jnp.int32)).astype(h.dtype),
        lambda h: jax.lax.fori_loop(0, 2, lambda _, x: jnp.where(x > 0, x, 0), h),
    ],
)
def test_a_network_that_cannot_be_followed_is_taken_to_look_everywhere(gate):
    assert reach(Gated(gate)) is None


class Unshuffled(nn.Module):
    """A network that computes on blocks of some pixels, which has to be told where they begin."""

    scale = 1
    smallest: int

    @nn.compact
    def __call__(self, lr):
        n, height, width, _ = lr.shape
        side = max(2, self.smallest)
        blocks = lr.reshape(n, height // side, side, width // side, side, 3)
        return (blocks + blocks.mean((2, 4), keepdims=True)).reshape(lr.shape)


@pytest.mark.parametrize("smallest", [1, 8])
def test_a_network_of_blocks_of_pixels_is_taken_to_look_everywhere(smallest):
    assert reach(Unshuffled(smallest)) is None


@pytest.mark.parametrize("kind", [list, np.array])
def test_attributes_need_not_be_hashable(kind):
    assert reach(Widths(kind([4, 4]))) == 3


class Widths(nn.Module):
    """A network with a convolution for each width."""

    widths: Any
    scale = 1

    @nn.compact
    def __call__(self, lr):
        for width in (*self.widths, 3):
            lr = PlainConv(int(width))(lr)
        return lr


class Shifted(nn.Module):
    """A network that looks 5 pixels to the left only."""

    scale = 1

    @nn.compact
    def __call__(self, lr):
        return lr + jnp.pad(lr, ((0, 0), (0, 0), (5, 0), (0, 0)))[:, :, :-5]


def test_a_network_that_reduces_the_image_cannot_be_divided_although_it_does_not_look_far():
    assert reach(Strided()) is None


class Positioned(nn.Module):
    """A network that adds something to its input that depends on the position, and not on any pixel."""

    scale = 1
    coordinates: Callable
    skip: bool = False

    @nn.compact
    def __call__(self, lr):
        rows = jnp.broadcast_to(self.coordinates(lr.shape[2])[None, None, :, None], (*lr.shape[:3], 1))
        return PlainConv(3)(jnp.concatenate([lr / 255, rows], -1)) + self.skip * lr


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(
    "coordinates",
    [
        lambda n: jnp.arange(n, dtype=jnp.float32) / 100,
        lambda n: jnp.linspace(-1, 1, n),
        lambda n: jnp.sin(jnp.arange(n, dtype=jnp.float32)),
    ],
)
def test_a_network_that_knows_coordinates_cannot_be_divided_although_it_does_not_look_far(coordinates, skip):
    assert reach(Positioned(coordinates, skip)) is None
    assert reach(Positioned(jnp.ones, skip)) == 1


class Overflowing(nn.Module):
    """A network whose result is finite with the zeros by which it is followed, and with few others."""

    scale = 1

    @nn.compact
    def __call__(self, lr):
        return jnp.exp(1e6 * PlainConv(3)(lr) ** 2)


def test_of_a_network_that_overflows_it_is_not_known_whether_it_can_be_divided():
    assert reach(Overflowing()) is None


def test_the_reach_is_the_farthest_of_all_directions():
    assert reach(Shifted()) == 5
