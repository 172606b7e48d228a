"""Images that cannot be measured are found, and named, before the first one is."""

import numpy as np
import pytest

from a2f_jax.data import open_pairs
from a2f_jax.errors import UserError
from a2f_jax.evaluation.measurable import check_measurable
from a2f_jax.images import write_rgb


@pytest.fixture
def pairs(tmp_path):
    """Pairs of which the second and the third cannot be measured."""
    for name, side in (("a", 40), ("b", 14), ("c", 40)):
        write_rgb(tmp_path / f"{name}.png", np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))
    (tmp_path / "c.png").write_bytes((tmp_path / "c.png").read_bytes()[:200])
    return open_pairs(tmp_path, scale=2)


def test_all_images_are_named_and_a_single_one_with_its_own_message(pairs):
    with pytest.raises(UserError, match=r"^2 of 3 images of mine cannot be measured: mine, image b.png: the"):
        check_measurable("mine", pairs, 2)
    with pytest.raises(UserError, match=r"c\.png is not an image or is damaged") as caught:
        check_measurable("mine", pairs, 2, [0, 2])
    assert "cannot be measured" not in str(caught.value)


def test_only_the_given_images_are_checked(pairs):
    check_measurable("mine", pairs, 2, [0])
    check_measurable("mine", pairs, 2, [])


def test_a_dataset_without_images_is_refused(pairs):
    with pytest.raises(UserError, match="mine contains no images"):
        check_measurable("mine", [], 2)
