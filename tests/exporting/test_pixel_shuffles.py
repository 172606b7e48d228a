"""Which programs are recognized as pixel shuffles."""

import jax
import jax.numpy as jnp
import pytest

from a2f_jax.exporting.pixel_shuffles import find_pixel_shuffles
from a2f_jax.models.layers import pixel_shuffle


def at_once(x):
    n, h, w, c = x.shape
    return x.reshape(n, h, w, c // 4, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(n, 2 * h, 2 * w, c // 4)


def channels_last(x):
    """The order of TensorFlow."""
    n, h, w, c = x.shape
    return x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, c // 4)


def found(function):
    jaxpr = jax.make_jaxpr(function)(jnp.zeros((2, 5, 7, 12))).jaxpr
    return jaxpr, find_pixel_shuffles(jaxpr)


@pytest.mark.parametrize(
    ("function", "mode"),
    [(at_once, "CRD"), (channels_last, "DCR"), (lambda x: pixel_shuffle(x, 2), "CRD")],
)
def test_a_shuffle_is_found_with_its_order_and_all_its_operations(function, mode):
    jaxpr, shuffles = found(function)
    (shuffle,) = [shuffle for shuffle in shuffles.values() if shuffle]
    last, scale, order = shuffle
    assert (scale, order, last) == (2, mode, jaxpr.eqns[-1])
    assert len(shuffles) == len(jaxpr.eqns)


def test_what_follows_a_shuffle_is_not_part_of_it():
    jaxpr, shuffles = found(lambda x: pixel_shuffle(x, 2).reshape(2, -1))
    assert len(shuffles) == len(jaxpr.eqns) - 1


def with_the_intermediate_result(x):
    split = x.reshape(2, 5, 7, 3, 2, 2)
    return split.transpose(0, 1, 4, 2, 5, 3).reshape(2, 10, 14, 3) + split.sum()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.reshape(2, 5, 7, 3, 2, 2).transpose(0, 1, 5, 2, 4, 3).reshape(2, 10, 14, 3),  # sub-pixels swapped
        lambda x: x.reshape(2, 5, 7, 3, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(2, 20, 7, 3),  # another shape
        with_the_intermediate_result,
    ],
)
def test_other_rearrangements_are_none(function):
    assert found(function)[1] == {}
