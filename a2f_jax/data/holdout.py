"""Which photographs of a dataset are held out for validation."""

import hashlib
from collections.abc import Collection, Sequence

import numpy as np

from a2f_jax.errors import UserError, count_of


def default_count(images: int) -> int:
    """Returns how many of a number of images are held out by default: a tenth, at least 1 and at most 100."""
    return min(max(images // 10, 1), 100) if images > 1 else 0


def check_count(count: int | None, images: int) -> None:
    """Checks that a number of images can be held out.

    Args:
      count: how many to hold out, or None for `default_count`.
      images: the number of images in the dataset.

    Raises:
      UserError: `count` is negative or not an integer, or leaves no image to train on.
    """
    if count is not None and not (isinstance(count, int | np.integer) and count >= 0):
        raise UserError(f"validation must be an integer of at least 0, not {count!r}", parameter="validation")
    if count is not None and count >= images:
        raise UserError(
            f"holding out {count} of {count_of(images, 'image')} leaves none to train on: hold out fewer",
            parameter="validation",
        )


def held_out(
    names: Sequence[str],
    count: int | None,
    *,
    validation_before: Collection[str] = (),
    train_before: Collection[str] = (),
) -> set[str]:
    """Chooses the images to hold out, so that none moves between training and validation when images are added.

    What was held out before stays held out. Further images are taken from the new ones first, then, if `count` requires
    it, from those trained on before, in the order of a hash of their names.

    Args:
      names: the images, by unique names.
      count: how many to hold out. None stands for `default_count`, without moving any image that was used before.
      validation_before: the images held out when the dataset was last prepared.
      train_before: the images not held out when the dataset was last prepared.

    Returns:
      The names of the images to hold out.

    Raises:
      UserError: `count` is negative, or leaves no image to train on.
    """
    check_count(count, len(names))
    shuffled = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    kept = [name for name in shuffled if name in validation_before]
    new = [name for name in shuffled if name not in validation_before and name not in train_before]
    if count is None:
        # If images have been removed since, at least one must be left to train on.
        count = min(max(default_count(len(names)), len(kept)), len(names) - 1)
        return set([*kept, *new][:count])
    trained = [name for name in shuffled if name in train_before and name not in validation_before]
    return set([*kept, *new, *trained][:count])
