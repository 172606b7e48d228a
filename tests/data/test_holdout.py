import pytest

from a2f_jax.data.holdout import default_count, held_out
from a2f_jax.errors import UserError

NAMES = [f"{i}.png" for i in range(20)]


def test_the_choice_depends_on_the_names_alone():
    chosen = held_out(NAMES, 5)
    assert len(chosen) == 5
    assert held_out(NAMES[::-1], 5) == chosen
    assert held_out(NAMES, 3) < chosen


def test_nothing_is_held_out_on_request():
    assert held_out(NAMES, 0) == set()


@pytest.mark.parametrize("count", [3, None])
def test_new_images_move_none_of_the_others(count):
    before = held_out(NAMES, count)
    train = set(NAMES) - before
    after = held_out(
        [*NAMES, *(f"new{i}.png" for i in range(100))], count, validation_before=before, train_before=train
    )
    assert before <= after
    assert not after & train
    assert len(after) == (count or 12)


def test_further_images_are_taken_from_the_new_ones_first():
    before = held_out(NAMES, 2)
    train = set(NAMES) - before
    new = {"a.png", "b.png"}
    names = [*NAMES, *new]
    assert held_out(names, 4, validation_before=before, train_before=train) == before | new
    more = held_out(names, 6, validation_before=before, train_before=train)
    assert more > before | new
    assert len(more & train) == 2


def test_fewer_are_held_out_on_request_but_not_by_default():
    before = held_out(NAMES, 6)
    train = set(NAMES) - before
    assert held_out(NAMES, 4, validation_before=before, train_before=train) < before
    assert held_out(NAMES, None, validation_before=before, train_before=train) == before


def test_images_that_were_removed_are_ignored():
    before = held_out(NAMES, 3)
    left = [name for name in NAMES if name not in before]
    assert held_out(left, None, validation_before=before, train_before=set(left)) == set()
    assert len(held_out(left, 3, validation_before=before, train_before=set(left))) == 3
    assert len(held_out(sorted(before), None, validation_before=before)) == 2  # one is left to train on


@pytest.mark.parametrize(("images", "count"), [(0, 0), (1, 0), (2, 1), (19, 1), (20, 2), (999, 99), (5000, 100)])
def test_the_default_is_a_tenth(images, count):
    assert default_count(images) == count


@pytest.mark.parametrize("count", [-1, 20])
def test_impossible_numbers_are_refused(count):
    with pytest.raises(UserError, match=f"{count}"):
        held_out(NAMES, count)
