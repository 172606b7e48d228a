"""A dataset decoded once into memory-mapped pixels.

Training would be input-bound if it decoded a PNG of 2040×1400 pixels for every patch. The cache stores all images of a
split as uint8 in two files, LR and HR, each an array of chunks `[chunks, 128]`. Every row of an image starts at a new
chunk. Offsets count chunks rather than bytes, so that int32 can address 250 GB of pixels, and the same layout lets the
whole dataset reside in accelerator memory and be cropped there.
"""

import hashlib
import os
import pathlib
import shutil
import zipfile
import zlib
from typing import Any, NamedTuple

import numpy as np
import tqdm

from a2f_jax import buckets
from a2f_jax.data.datasets import StoredPairs, dataset_folder
from a2f_jax.data.locations import data_root, prepared_folder
from a2f_jax.data.parallel import in_order
from a2f_jax.data.sources import dataset_name
from a2f_jax.errors import UserError
from a2f_jax.files import flush_to_disk, locked, require_space
from a2f_jax.progress import progress_bar

CHUNK = 128
"""Size of a chunk in bytes."""

_FORMAT = "2"
_MAX_CHUNKS = np.iinfo(np.int32).max


class Cache(NamedTuple):
    """The decoded images of one split.

    Attributes:
      scale: the scale of the pairs.
      names: the name of each image.
      sizes: int32 `[images, 2]`, LR height and width in pixels.
      lr: uint8 `[chunks, 128]`, memory-mapped.
      hr: uint8 `[chunks, 128]`, memory-mapped.
      lr_start: int32 `[images]`, the first chunk of each image in `lr`.
      hr_start: int32 `[images]`, the first chunk of each image in `hr`.
    """

    scale: int
    names: list[str]
    sizes: np.ndarray
    lr: np.ndarray
    hr: np.ndarray
    lr_start: np.ndarray
    hr_start: np.ndarray

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns read-only views of one image, LR uint8 `[h, w, 3]` and HR uint8 `[s·h, s·w, 3]`."""
        height, width = map(int, self.sizes[index])
        return (
            _view(self.lr, int(self.lr_start[index]), height, width),
            _view(self.hr, int(self.hr_start[index]), height * self.scale, width * self.scale),
        )


def row_chunks(width: Any) -> Any:
    """Returns the number of chunks per row of RGB pixels, for a width in pixels given as an int or an integer array."""
    return -(-3 * width // CHUNK)


def _view(chunks: np.ndarray, start: int, height: int, width: int) -> np.ndarray:
    per_row = row_chunks(width)
    rows = chunks[start : start + height * per_row]
    return np.ndarray((height, width, 3), np.uint8, rows, strides=(per_row * CHUNK, 3, 1))


def _fingerprint(folder: pathlib.Path, split: str) -> str:
    # Identifies the prepared files, so that a dataset that is prepared again is decoded again.
    facts = [f"{_FORMAT} {split}"]
    for file in sorted(folder.glob("*record*")):
        stat = file.stat()
        facts.append(f"{file.name} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


class _Layout(NamedTuple):
    """Sizes and places of the images, as in `Cache`, and the number of chunks of each file."""

    sizes: np.ndarray
    starts: dict[str, np.ndarray]
    chunks: dict[str, int]


def _lay_out(pairs: StoredPairs, scale: int, name: str) -> _Layout:
    sizes = np.array(list(in_order(pairs.lr_size, range(len(pairs)))), np.int64)
    ends = {key: np.cumsum(s * sizes[:, 0] * row_chunks(s * sizes[:, 1])) for key, s in (("lr", 1), ("hr", scale))}
    if ends["hr"][-1] > _MAX_CHUNKS:
        raise UserError(f"{name} ×{scale} has more than 250 GB of pixels: train on a subset of it")
    starts = {key: np.array([0, *end[:-1]], np.int32) for key, end in ends.items()}
    return _Layout(sizes.astype(np.int32), starts, {key: int(end[-1]) for key, end in ends.items()})


def _build(folder: pathlib.Path, pairs: StoredPairs, layout: _Layout, bar: tqdm.tqdm) -> None:
    names = []
    # Written rather than mapped: on a full disk, a write raises an error, but a store to a mapping kills the process.
    with bar, (folder / "lr").open("wb") as lr, (folder / "hr").open("wb") as hr:
        for pair in in_order(pairs.__getitem__, range(len(pairs))):
            names.append(pair.name)
            for file, pixels in ((lr, pair.lr), (hr, pair.hr)):
                height, width = pixels.shape[:2]
                rows = np.zeros((height, row_chunks(width) * CHUNK), np.uint8)
                rows[:, : 3 * width] = pixels.reshape(height, 3 * width)
                file.write(rows.data)
            bar.update()
        for file in (lr, hr):
            flush_to_disk(file)
    with (folder / "index.npz").open("wb") as index:
        np.savez(
            index,
            names=np.array(names),
            sizes=layout.sizes,
            lr_start=layout.starts["lr"],
            hr_start=layout.starts["hr"],
        )
        flush_to_disk(index)


def _read(folder: pathlib.Path, scale: int) -> Cache | None:
    # None if there is no cache, or if it is damaged, which decoding again repairs.
    try:
        with np.load(folder / "index.npz") as index:
            sizes, starts = index["sizes"], {"lr": index["lr_start"], "hr": index["hr_start"]}
            names = index["names"].tolist()
        pixels = {}
        for key, factor in (("lr", 1), ("hr", scale)):
            height, width = map(int, sizes[-1])
            chunks = int(starts[key][-1]) + factor * height * row_chunks(factor * width)
            if (folder / key).stat().st_size != chunks * CHUNK:
                return None
            # As a plain array, because every view of a memmap carries the overhead of the subclass.
            pixels[key] = np.memmap(folder / key, np.uint8, "r").view(np.ndarray).reshape(-1, CHUNK)
    except (FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return Cache(scale, names, sizes, pixels["lr"], pixels["hr"], starts["lr"], starts["hr"])


def cache_without_pixels(name: str, *, scale: int, data_dir: str | os.PathLike[str] | None = None) -> Cache | None:
    """Returns what `open_cache` would return for training, with zeros that take no memory, and writes nothing.

    Args:
      name: the name of a dataset.
      scale: the scale of the pairs.
      data_dir: the folder with the prepared datasets; by default `default_data_dir()`.

    Returns:
      The cache without names, or None if the dataset is not prepared on this machine.

    Raises:
      UserError: the dataset is damaged.
    """
    folder = prepared_folder(dataset_name(name), scale, data_root(data_dir))
    if folder is None or buckets.in_bucket(folder):
        return None
    layout = _lay_out(StoredPairs(folder, "train", scale), scale, name)
    lr, hr = (np.broadcast_to(np.uint8(0), (layout.chunks[key], CHUNK)) for key in ("lr", "hr"))
    return Cache(scale, [], layout.sizes, lr, hr, layout.starts["lr"], layout.starts["hr"])


def open_cache(
    name: str,
    *,
    scale: int,
    split: str = "train",
    data_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Cache:
    """Opens the decoded pixels of a split, and decodes them first if necessary.

    Several processes may call this at the same time: one decodes and the others wait. A process that is killed while
    decoding leaves nothing behind that could be mistaken for a cache. A dataset that was prepared again is decoded
    again, and so is one whose decoded pixels are damaged.

    Args:
      name: the name of a prepared dataset, as passed to `a2f_jax.prepare`.
      scale: the scale of the pairs.
      split: `"train"` or `"validation"`.
      data_dir: the folder with the prepared datasets; by default `default_data_dir()`.
      progress: whether to show a progress bar while decoding.

    Returns:
      The decoded pixels, memory-mapped and read-only.

    Raises:
      UserError: the dataset is not prepared or damaged, or its folder is full or read-only.
    """
    name = dataset_name(name)
    dataset = dataset_folder(name, scale=scale, data_dir=data_dir)
    decoded = dataset.parent / "decoded"
    folder = decoded / f"{split}-{_fingerprint(dataset, split)}"
    try:
        cache = _read(folder, scale)
        if cache is None:
            decoded.mkdir(exist_ok=True)
            with locked(decoded / f"{split}.lock"):
                cache = _read(folder, scale)
                if cache is None:
                    # Anything else was left by a process that died, or belongs to an earlier preparation.
                    for old in decoded.glob(f"{split}-*"):
                        shutil.rmtree(old)
                    pairs = StoredPairs(dataset, split, scale)
                    layout = _lay_out(pairs, scale, name)
                    require_space(
                        decoded,
                        sum(layout.chunks.values()) * CHUNK,
                        "decoding the images",
                        remedy="free some space, or prepare the dataset in another data_dir",
                    )
                    partial = decoded / f"{split}-partial"
                    partial.mkdir()
                    try:
                        description = f"decoding {name} ×{scale} {split}"
                        bar = progress_bar(total=len(pairs), unit="image", description=description, visible=progress)
                        _build(partial, pairs, layout, bar)
                        os.replace(partial, folder)
                    finally:
                        shutil.rmtree(partial, ignore_errors=True)
                    cache = _read(folder, scale)
        if cache is None:
            raise UserError(
                f"the decoded images in {folder} cannot be read back: check the disk, or prepare the dataset in "
                "another data_dir"
            )
        return cache
    except OSError as error:
        raise UserError(
            f"cannot write decoded images to {decoded} ({error.strerror or error}): prepare the dataset in another "
            "data_dir"
        ) from error
