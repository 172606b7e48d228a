"""Which weights an image is upscaled with, by its format and the quality of a JPEG file."""

import numpy as np
import pytest

from a2f_jax.images.decoding import Picture
from a2f_jax.upscaling.choice import CLEAN_FROM, Candidate, Choice, describe_source

CLEAN, PHOTO = Candidate("clean", None), Candidate("photo", None)


@pytest.fixture
def picture():
    def make(**attributes):
        return Picture(np.zeros((8, 8, 3), np.uint8), **attributes)

    return make


@pytest.mark.parametrize(
    ("quality", "weights"), [(1, PHOTO), (CLEAN_FROM - 1, PHOTO), (CLEAN_FROM, CLEAN), (100, CLEAN), (None, CLEAN)]
)
def test_jpeg_below_the_threshold_has_the_weights_for_photographs(picture, quality, weights):
    assert Choice(2, CLEAN, PHOTO).of(picture(jpeg_quality=quality)) is weights


def test_without_weights_for_photographs_all_images_have_those_for_clean_ones(picture):
    assert Choice(2, CLEAN).of(picture(jpeg_quality=10)) is CLEAN


def test_what_the_choice_depends_on_is_described(picture):
    assert describe_source(picture(format="JPEG", jpeg_quality=60)) == "JPEG of quality 60"
    assert describe_source(picture(format="WEBP")) == "WEBP"
