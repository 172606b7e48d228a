"""Texts of messages."""

import pytest

from a2f_jax.errors import count_of, escape, shorten


@pytest.mark.parametrize(("number", "text"), [(0, "0 steps"), (1, "1 step"), (2, "2 steps"), (21, "21 steps")])
def test_one_thing_is_singular(number, text):
    assert count_of(number, "step") == text


def test_a_long_list_is_shortened_to_its_beginning_and_a_count():
    assert shorten(["a", "b"], most=2) == "a, b"
    assert shorten(["a", "b", "c", "d"], most=2) == "a, b and 2 more"


def test_characters_that_control_a_terminal_are_escaped():
    assert escape("a\nb\x1b[31m\u2028×") == r"a\nb\x1b[31m\u2028×"
