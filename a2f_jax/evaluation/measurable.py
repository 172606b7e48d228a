"""Finds the images of a dataset that cannot be measured, before the first one is."""

from collections.abc import Sequence

from a2f_jax.data.datasets import Pairs
from a2f_jax.errors import UserError, count_of, shorten
from a2f_jax.evaluation.metrics import check_size
from a2f_jax.progress import progress_bar


def check_measurable(
    name: str, pairs: Pairs, scale: int, indices: Sequence[int] | None = None, *, progress: bool = False
) -> None:
    """Checks that the images of a dataset can be read and measured.

    Args:
      name: the name of the dataset, for the error.
      pairs: the dataset.
      scale: the scale of the pairs, which is the number of pixels that are ignored at each border.
      indices: the pairs to check; by default all of them.
      progress: whether to show a progress bar on standard error.

    Raises:
      UserError: the dataset is empty, or images cannot be read or are too small; all of them are named.
    """
    if not len(pairs):
        raise UserError(f"{name} contains no images")
    chosen = range(len(pairs)) if indices is None else indices
    bad = []
    with progress_bar(
        total=len(chosen), unit="image", description=f"checking {name}", visible=progress, leave=False
    ) as bar:
        for index in chosen:
            try:
                height, width = pairs.hr_size(index)
                check_size(height, width, scale)
            except UserError as error:
                bad.append(str(error))
            except ValueError as error:
                bad.append(f"{name}, image {pairs[index].name}: {error}")
            bar.update()
    if len(bad) == 1:
        raise UserError(bad[0])
    if bad:
        reasons = shorten(bad, most=20, separator="; ")
        raise UserError(f"{len(bad)} of {count_of(len(pairs), 'image')} of {name} cannot be measured: {reasons}")
