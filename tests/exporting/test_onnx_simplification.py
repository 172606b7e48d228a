"""What nodes are merged into."""

import numpy as np
import pytest

from a2f_jax.exporting.onnx_simplification import Node, simplify

CONV = {"group": 1}


def run(*nodes, output, **constants):
    """Simplifies nodes, given as (operation, inputs, output), and returns them as such, and the constants."""
    attributes = {"Conv": CONV, "Concat": {"axis": 1}, "Split": {"axis": 1}}
    whole = [
        Node(operation, out.split()[0], inputs.split(), out.split(), dict(attributes.get(operation, {})))
        for operation, inputs, out in nodes
    ]
    merged, left, output = simplify(whole, {name: np.float32(array) for name, array in constants.items()}, output)
    assert output in merged[-1].outputs
    return [node.operation for node in merged], left, merged


def test_factors_and_biases_end_up_in_the_convolution():
    kinds, constants, (conv,) = run(
        ("Conv", "x w", "c"),
        ("Add", "c b", "d"),
        ("Mul", "two d", "e"),
        output="e",
        w=np.ones((3, 1, 1, 1)),
        b=np.reshape([1, 2, 3], (1, 3, 1, 1)),
        two=2,
    )
    assert kinds == ["Conv"]
    np.testing.assert_array_equal(constants[conv.inputs[1]].ravel(), [2, 2, 2])
    np.testing.assert_array_equal(constants[conv.inputs[2]], [2, 4, 6])


@pytest.mark.parametrize("shared", ["the result", "the weights"])
def test_a_convolution_that_is_shared_stays_as_it_is(shared):
    other = ("Relu", "c", "r") if shared == "the result" else ("Conv", "y w", "r")
    kinds, constants, _ = run(
        ("Conv", "x w", "c"),
        other,
        ("Mul", "two c", "d"),
        ("Add", "d r", "e"),
        output="e",
        w=np.ones((2, 1, 1, 1)),
        two=2,
    )
    assert kinds == ["Conv", other[0], "Mul", "Add"]
    np.testing.assert_array_equal(constants["w"], 1)


def test_a_bias_for_each_pixel_stays_an_addition():
    kinds, _, _ = run(
        ("Conv", "x w", "c"), ("Add", "c b", "d"), output="d", w=np.ones((2, 1, 1, 1)), b=np.ones((1, 2, 4, 4))
    )
    assert kinds == ["Conv", "Add"]


def test_activations_are_recognized():
    kinds, _, (leaky,) = run(
        ("GreaterOrEqual", "x zero", "g"),
        ("Mul", "slope x", "s"),
        ("Where", "g x s", "y"),
        output="y",
        zero=0,
        slope=0.25,
    )
    assert (kinds, leaky.attributes) == (["LeakyRelu"], {"alpha": 0.25})
    slopes = np.reshape([0.1, 0.2], (1, 2, 1, 1))
    kinds, constants, (prelu,) = run(
        ("Relu", "x", "p"),
        ("Min", "x zero", "m"),
        ("Mul", "slopes m", "s"),
        ("Add", "p s", "y"),
        output="y",
        zero=0,
        slopes=slopes,
    )
    assert kinds == ["PRelu"]
    assert constants[prelu.inputs[1]].shape == (2, 1, 1)


def test_other_sums_and_selections_are_not_taken_for_activations():
    for nodes, constants in (
        (
            [("GreaterOrEqual", "x one", "g"), ("Mul", "slope x", "s"), ("Where", "g x s", "y")],
            {"one": 1, "slope": 0.2},
        ),
        (
            [("Relu", "x", "p"), ("Min", "z zero", "m"), ("Mul", "slope m", "s"), ("Add", "p s", "y")],
            {"zero": 0, "slope": 2},
        ),
    ):
        kinds, _, _ = run(*nodes, output="y", **constants)
        assert kinds == [operation for operation, _, _ in nodes]


def test_convolutions_of_groups_become_one():
    kinds, constants, (conv,) = run(
        ("Split", "x", "a b"),
        ("Conv", "a v", "c"),
        ("Conv", "b w", "d"),
        ("Concat", "c d", "y"),
        output="y",
        v=np.full((2, 1, 3, 3), 1),
        w=np.full((2, 1, 3, 3), 2),
    )
    assert (kinds, conv.attributes["group"]) == (["Conv"], 2)
    np.testing.assert_array_equal(constants[conv.inputs[1]][:, 0, 0, 0], [1, 1, 2, 2])


def test_what_the_output_does_not_depend_on_is_left_out():
    kinds, constants, _ = run(("Relu", "x", "y"), ("Mul", "y two", "z"), output="y", two=2)
    assert (kinds, constants) == (["Relu"], {})
