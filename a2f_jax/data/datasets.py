"""Datasets of LR–HR pairs, read by tensorflow-datasets without TensorFlow, or directly from image files.

A dataset is prepared once per scale: its images are stored, losslessly compressed, in array_record files in
`<data_dir>/<name>/x<scale>/1.0.0`. DIV2K prepared by tensorflow-datasets' own builder (`div2k/bicubic_x4`) can be read
too.
"""

import abc
import contextlib
import io
import operator
import os
import pathlib
import shlex
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from PIL import Image

from a2f_jax.catalog import BENCHMARK_SETS
from a2f_jax.data.discovery import find, unsupported_images
from a2f_jax.data.locations import data_root, prepared_folder
from a2f_jax.data.preparation import prepare
from a2f_jax.data.sources import Pair, Source, check_scale, dataset_name, is_folder_path
from a2f_jax.errors import UserError, shorten
from a2f_jax.files import as_path, check_readable, resolved
from a2f_jax.images.reading import without_pillow_limit
from a2f_jax.progress import say
from a2f_jax.staging import cached_folder, naming


class Pairs(Sequence[Pair]):
    """The pairs of a dataset, decoded on access."""

    @overload
    def __getitem__(self, index: int) -> Pair: ...

    @overload
    def __getitem__(self, index: slice) -> list[Pair]: ...

    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        places = range(len(self))[index if isinstance(index, slice) else operator.index(index)]
        return self._read(places) if isinstance(places, int) else [self._read(place) for place in places]

    @abc.abstractmethod
    def _read(self, index: int) -> Pair:
        """Decodes a pair; `index` is not negative."""

    @abc.abstractmethod
    def hr_size(self, index: int) -> tuple[int, int]:
        """Returns the HR height and width of a pair in pixels, which takes less time than reading the pair.

        Args:
          index: the index of the pair.

        Raises:
          UserError: the pair cannot be read.
        """


class StoredPairs(Pairs):
    """The pairs of a prepared dataset, decoded on access.

    Args:
      folder: the folder of the prepared dataset.
      split: the name of the split.
      scale: the scale of the pairs.

    Raises:
      UserError: the dataset is damaged, is not in array_record format, or has no such split.
    """

    def __init__(self, folder: pathlib.Path, split: str, scale: int):
        import tensorflow_datasets as tfds

        try:
            builder = tfds.builder_from_directory(folder)
        except Exception as error:  # each library that meets the damage raises its own
            check_readable(folder)
            reason = " ".join(str(error).split())
            raise UserError(f"{folder} is damaged ({reason}): prepare the dataset again and overwrite it") from error
        if split not in builder.info.splits:
            raise UserError(
                f"{folder} has no split {split!r}, only {', '.join(builder.info.splits)}: prepare the dataset again, "
                "and hold out photographs for validation"
            )
        raw = tfds.decode.SkipDecoding()
        try:
            self._data = builder.as_data_source(split=split, decoders={"lr": raw, "hr": raw})
        except NotImplementedError as error:
            raise UserError(
                f"{folder} is not in array_record format: prepare the dataset again, or convert it with the "
                "convert_format script of tensorflow-datasets"
            ) from error
        self._folder, self._scale = folder, scale

    def __len__(self) -> int:
        return len(self._data)

    def lr_size(self, index: int) -> tuple[int, int]:
        """Returns the LR height and width of a pair in pixels, without decoding it.

        Args:
          index: the index of the pair.

        Raises:
          UserError: the image is damaged.
        """
        with (
            self._reporting_damage(index),
            without_pillow_limit,
            Image.open(io.BytesIO(self._data[index]["lr"])) as image,
        ):
            return image.height, image.width

    def hr_size(self, index: int) -> tuple[int, int]:
        """Returns the HR height and width of a pair in pixels, without decoding it."""
        height, width = self.lr_size(index)
        return self._scale * height, self._scale * width

    @contextlib.contextmanager
    def _reporting_damage(self, index: int) -> Iterator[None]:
        try:
            yield
        except MemoryError:
            raise
        except Exception as error:  # each library that meets the damage raises its own
            check_readable(self._folder)
            raise UserError(
                f"image {index} in {self._folder} is damaged ({error}): prepare the dataset again and overwrite it"
            ) from error

    def _read(self, index: int) -> Pair:
        with self._reporting_damage(index), without_pillow_limit:  # the images are those that `prepare` accepted
            example = self._data[index]
            lr, hr = (np.asarray(Image.open(io.BytesIO(example[key])).convert("RGB")) for key in ("lr", "hr"))
        height, width = self._scale * lr.shape[0], self._scale * lr.shape[1]
        if hr.shape[0] < height or hr.shape[1] < width:
            raise UserError(
                f"image {index} in {self._folder} has an HR image of {hr.shape[1]}×{hr.shape[0]} pixels, but LR "
                f"×{self._scale} is {width}×{height}: prepare the dataset again and overwrite it"
            )
        # DIV2K prepared by tensorflow-datasets itself has no names.
        name = example["name"].decode() if "name" in example else f"{index:04d}"
        return Pair(name, lr, hr[:height, :width])


class _Files(Pairs):
    """Pairs read directly from image files."""

    def __init__(self, sources: Sequence[Source], scale: int):
        self._sources, self._scale = sources, scale

    def __len__(self) -> int:
        return len(self._sources)

    def _read(self, index: int) -> Pair:
        return self._sources[index].read(self._scale)

    def hr_size(self, index: int) -> tuple[int, int]:
        return self._sources[index].hr_size(self._scale)


def dataset_folder(name: str, *, scale: int, data_dir: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Returns the folder of a prepared dataset. The sample is prepared first if necessary.

    A dataset in a bucket is copied to a folder in the user's cache, once per host and preparation.

    Args:
      name: the name of the dataset, as passed to `prepare`.
      scale: the scale of the pairs.
      data_dir: the folder with the prepared datasets; by default `default_data_dir()`.

    Raises:
      UserError: the dataset is not prepared; the message contains the command that prepares it. The sample is not
        prepared in a folder that is passed but does not exist, because its name may be misspelled.
    """
    name = dataset_name(name)
    check_scale(scale)
    root = data_root(data_dir)
    if ready := prepared_folder(name, scale, root):
        return cached_folder(ready)
    exists = root.is_dir()
    if name == "sample" and (exists or data_dir is None):
        return cached_folder(prepare(name, scale=scale, data_dir=root))
    check_readable(root / name / f"x{scale}")
    source = "" if name in ("div2k", "sample") else " --source DIR"
    if name in BENCHMARK_SETS:
        other = f"pass the folder that contains {BENCHMARK_SETS[name].title}/, or "
    else:
        other = "" if exists else "pass another folder, or "
    missing = "" if exists else ", which does not exist"
    raise UserError(
        f"{name} ×{scale} is not prepared in {root}{missing}: {other}prepare it with "
        f"a2f_jax.prepare, or in a shell with `a2f data prepare {name} --scale {scale}{source} --data-dir "
        f"{shlex.quote(str(root))}`",
        parameter="data_dir" if other else None,
    )


def _find_benchmark(name: str, root: pathlib.Path, scale: int) -> Sequence[Source]:
    spellings = BENCHMARK_SETS[name].spellings

    def belongs(file: str) -> bool:  # in a bucket, other sets need not be copied
        return any(part.lower() in spellings for part in (root / file).parts[:-1])

    folder = cached_folder(root, name, belongs)
    with naming(folder, root):
        return find(name, folder, scale)["test"]


def _open_folder(path: str | os.PathLike[str], scale: int) -> Pairs:
    root = resolved(as_path(path))
    if not root.is_dir():
        raise UserError(f"{root} is not a folder: pass a folder with images, or the name of a dataset")
    folder = cached_folder(root)
    spelled = root.name.lower()
    name = next((key for key, known in BENCHMARK_SETS.items() if spelled in known.spellings), "photographs")
    with naming(folder, root):
        splits = find(name, folder, scale)
    if left_out := unsupported_images(folder):
        say(f"left out of {root}, in unsupported formats: {shorten(left_out)}")
    sources = [source for split in splits.values() for source in split]
    if len({source.name for source in sources}) < len(sources):  # such as `train/HR/1.png` and `val/HR/1.png`
        sources = [s._replace(name=f"{split}/{s.name}") for split, group in splits.items() for s in group]
    return _Files(sources, scale)


def open_pairs(
    name: str | os.PathLike[str],
    *,
    scale: int,
    split: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Pairs:
    """Opens a dataset as a sequence of LR–HR pairs in a fixed order.

    Args:
      name: the name of a prepared dataset or of a benchmark set, as passed to `prepare`. The sample is prepared when it
        is first opened. Or the path of a folder, as a path object or with a separator, such as `"photos/"`: all images
        in it and its subfolders are HR, and LR is computed, unless it has LR images in a layout that `prepare`
        recognizes.
      scale: the scale of the pairs: 2, 3 or 4.
      split: `"train"`, `"validation"`, or `"test"`, the only split of the benchmark sets. By default the split for
        evaluation: `"test"` for benchmark sets, `"validation"` for other datasets.
      data_dir: the folder with the prepared datasets, by default `default_data_dir()`; for benchmark sets also a folder
        with the original images, in any layout that `prepare` recognizes.

    Returns:
      The pairs, decoded on access: uint8 RGB images and a name each.

    Raises:
      UserError: the dataset is not found, is damaged, or has no such split.
    """
    check_scale(scale)
    if is_folder_path(name):
        if split not in (None, "test"):
            raise UserError(f"{os.fspath(name)} has no split {split!r}: prepare a dataset from it")
        return _open_folder(name, scale)
    given, name = name, dataset_name(str(name))
    root = data_root(data_dir)
    if name not in BENCHMARK_SETS:
        try:
            folder = dataset_folder(name, scale=scale, data_dir=data_dir)
        except UserError as error:
            if not os.path.isdir(given):
                raise
            raise UserError(
                f"{error}; to open the images in the folder {given} as they are, pass ./{given}",
                parameter=error.parameter,
            ) from error
        return StoredPairs(folder, split or "validation", scale)
    if split not in (None, "test"):
        raise UserError(f"{name} has no split {split!r}: it is a benchmark set, whose only split is 'test'")
    if data_dir is not None and root.is_dir() and not prepared_folder(name, scale, root):
        return _Files(_find_benchmark(name, root, scale), scale)
    return StoredPairs(dataset_folder(name, scale=scale, data_dir=data_dir), "test", scale)
