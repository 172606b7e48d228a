"""Which weights the arguments of `a2f upscale` select."""

import argparse

import pytest

from a2f_jax.cli import selection
from a2f_jax.errors import UserError


@pytest.fixture
def choice():
    def select(*argv):
        """Returns the scale of the choice, and the names of the weights for clean images and for photographs."""
        parser = argparse.ArgumentParser()
        selection.add_arguments(parser)
        parser.add_argument("--scale", type=float)
        parser.set_defaults(size=None, dtype="float32")
        chosen = selection.choice_of(parser.parse_args(argv))
        return chosen.scale, chosen.clean.name, chosen.photo and chosen.photo.name

    return select


def test_by_default_images_are_upscaled_with_one_of_two_shipped_weights_of_their_scale(choice):
    assert choice() == (4, "a2f-sd-x4", "a2f-sd-x4-photo")
    assert choice("--scale", "2") == (2, "a2f-sd-x2", "a2f-sd-x2-photo")
    assert choice("--scale", "1.5") == (2, "a2f-sd-x2", "a2f-sd-x2-photo")
    assert choice("--scale", "6") == (4, "a2f-sd-x4", "a2f-sd-x4-photo")


def test_a_scale_without_weights_for_photographs_leaves_no_choice(choice, monkeypatch):
    monkeypatch.setattr("a2f_jax.weights.shipped_weights", lambda: {"a2f-sd-x3": None})
    assert choice("--scale", "2.5") == (3, "a2f-sd-x3", None)


@pytest.mark.parametrize("name", ["a2f-sd-x2", "a2f-sd-x2-photo"])
def test_weights_that_are_named_leave_no_choice(choice, name):
    assert choice("--model", name) == choice("--weights", name) == (2, name, None)


def test_a_variant_that_is_named_stands_for_its_weights_for_clean_images(choice):
    assert choice("--model", "a2f-sd") == (4, "a2f-sd-x4", None)
    assert choice("--model", "a2f-sd", "--scale", "2.5") == (3, "a2f-sd-x3", None)


def test_a_name_without_a_scale_may_have_a_suffix(choice):
    assert choice("--model", "a2f-sd-photo") == (4, "a2f-sd-x4-photo", None)
    assert choice("--model", "a2f-sd-photo", "--scale", "2") == (2, "a2f-sd-x2-photo", None)
    assert choice("--model", "a2f-sd-photo", "--scale", "3") == (3, "a2f-sd-x3-photo", None)
    with pytest.raises(UserError, match=r"a2f-s has no weights for ×3, only for ×4"):
        choice("--model", "a2f-s", "--scale", "3")
    with pytest.raises(UserError, match=r"no weights at automatic: "):
        choice("--model", "automatic")
