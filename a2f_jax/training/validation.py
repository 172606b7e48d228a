"""Validation during training: PSNR and SSIM on held-out images, and on whole datasets."""

import hashlib
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

from a2f_jax.data import Pair, open_pairs
from a2f_jax.data.sources import dataset_name, is_folder_path
from a2f_jax.errors import UserError
from a2f_jax.evaluation.measurable import check_measurable
from a2f_jax.evaluation.metrics import MOST_PSNR, psnr_y, ssim_y
from a2f_jax.files import as_path, resolved
from a2f_jax.model import Model
from a2f_jax.training.settings import naming_setting

_CROP = 128
"""Side in LR pixels of the center crop that validation measures.

A fixed crop keeps the scores comparable, needs few compilations and takes little time from training."""


def center_crop(pair: Pair, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the central crop of a pair as `(LR, HR)`, at most 128 LR pixels high and wide."""
    height, width = (min(_CROP, size) for size in pair.lr.shape[:2])
    top, left = (pair.lr.shape[0] - height) // 2, (pair.lr.shape[1] - width) // 2
    lr = pair.lr[top : top + height, left : left + width]
    top, left, height, width = (scale * value for value in (top, left, height, width))
    return lr, pair.hr[top : top + height, left : left + width]


def digest_of(images: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
    """Returns a digest of the validation images of all processes, in which their order and their number do not count.

    Args:
      images: this process's share, pairs of LR and HR images.
    """
    digests = [hashlib.blake2b(lr.tobytes() + hr.tobytes(), digest_size=8).digest() for lr, hr in images]
    total = sum(int.from_bytes(digest) for digest in digests) % 2**64
    if jax.process_count() > 1:
        own = np.frombuffer(total.to_bytes(8), np.uint8)
        shares = np.asarray(multihost_utils.process_allgather(own))
        total = sum(int.from_bytes(share.tobytes()) for share in shares) % 2**64
    return f"{total:016x}"


class WholeImages:
    """A dataset to validate on as a whole, such as a benchmark set, without cropping; decoded anew each time.

    Args:
      name: the name of the dataset, or the path of a folder, as for `open_pairs`.
      scale: the scale of the pairs.
      data_dir: the folder with the dataset.
      process_index: the index of this process, which measures its share of the images.
      process_count: the number of processes.

    Attributes:
      name: the name under which its scores are logged; that of a folder is the last component of its path.

    Raises:
      UserError: the dataset is not found or has no images, or images cannot be read or are too small to be measured.
    """

    def __init__(self, name: str, *, scale: int, data_dir: str | None, process_index: int, process_count: int):
        self.name = (pathlib.PurePath(name).name if is_folder_path(name) else "") or name
        self._pairs = open_pairs(name, scale=scale, data_dir=data_dir)
        self._indices = range(len(self._pairs))[process_index::process_count]
        check_measurable(name, self._pairs, scale, self._indices)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return ((pair.lr, pair.hr) for pair in (self._pairs[i] for i in self._indices))


def open_whole_images(
    names: Sequence[str], *, scale: int, data_dir: str | None, process_index: int, process_count: int
) -> list[WholeImages]:
    """Opens several datasets to validate on, each as `WholeImages` does.

    Raises:
      UserError: a dataset cannot be opened, one is named twice, or two of them have the same name.
    """
    for first, second in itertools.combinations(names, 2):
        if _identity(first) == _identity(second):
            raise UserError(f"config.validation.sets names {first} twice: leave out one of them")
    with naming_setting("validation.dir"):
        sets = [
            WholeImages(name, scale=scale, data_dir=data_dir, process_index=process_index, process_count=process_count)
            for name in names
        ]
    for one, other in itertools.combinations(sets, 2):
        if one.name == other.name:
            raise UserError(f"config.validation.sets contains two folders {one.name}: rename one of them")
    return sets


def _identity(name: str) -> object:
    return resolved(as_path(name)) if is_folder_path(name) else dataset_name(name)


def validate(model: Model, images: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray | None]:
    """Measures a model on validation images.

    Args:
      model: the model with the current weights.
      images: pairs of LR and HR images, uint8 `[h, w, 3]` and `[scale · h, scale · w, 3]`.

    Returns:
      The sum of the PSNR values in dB, each at most 100, the sum of the SSIM values, both on luma, and the number of
      images, float64 `[3]`, which can be summed over processes; and the first SR image beside its HR image, uint8
      `[H, 2 · W, 3]`, or None if there are no images.
    """
    sums, picture = np.zeros(3), None
    for lr, hr in images:
        sr = model.upscale(lr)
        sums += min(psnr_y(sr, hr, model.scale), MOST_PSNR), ssim_y(sr, hr, model.scale), 1
        if picture is None:
            picture = np.concatenate([sr, hr], 1)
    return sums, picture
