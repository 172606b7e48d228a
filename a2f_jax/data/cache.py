"""A dataset decoded once into memory-mapped pixels.

Decoding a PNG of 2040×1400 pixels for every patch cut from it is what makes training wait for data. The cache holds
all images of a split as uint8 in two files, LR and HR, each a matrix of chunks `[chunks, 128]`: every row of an image
starts at a chunk of its own. Chunks, not bytes, are counted, so that a place in even 250 GB of pixels is an int32;
with the same layout the whole set can lie in an accelerator's memory and be cropped there.
"""

import hashlib
import os
import pathlib
import shutil
from typing import Any, NamedTuple

import numpy as np
import tqdm

from a2f_jax.data.datasets import dataset_folder, open_pairs
from a2f_jax.data.parallel import in_order
from a2f_jax.data.sources import dataset_name
from a2f_jax.errors import UserError
from a2f_jax.files import locked

CHUNK = 128
"""Bytes."""

_FORMAT = "2"


class Cache(NamedTuple):
    """Decoded images of one split.

    Attributes:
      scale: the scale of the pairs.
      names: the images' names.
      sizes: int32 `[images, 2]`, height and width of LR in pixels.
      lr: uint8 `[chunks, 128]`, memory-mapped.
      hr: uint8 `[chunks, 128]`, memory-mapped.
      lr_start: int32 `[images]`, the first chunk of each image in `lr`.
      hr_start: int32 `[images]`, the same in `hr`.
    """

    scale: int
    names: list[str]
    sizes: np.ndarray
    lr: np.ndarray
    hr: np.ndarray
    lr_start: np.ndarray
    hr_start: np.ndarray

    def images(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns LR and HR of one image, views of the mapped files, uint8 `[h, w, 3]` and `[s·h, s·w, 3]`."""
        height, width = map(int, self.sizes[index])
        return (
            _view(self.lr, int(self.lr_start[index]), height, width),
            _view(self.hr, int(self.hr_start[index]), height * self.scale, width * self.scale),
        )


def row_chunks(width: Any) -> Any:
    """How many chunks a row of RGB pixels takes; an int, or arrays of NumPy or JAX."""
    return -(-3 * width // CHUNK)


def _view(chunks: np.ndarray, start: int, height: int, width: int) -> np.ndarray:
    per_row = row_chunks(width)
    rows = chunks[start : start + height * per_row]
    return np.ndarray((height, width, 3), np.uint8, rows, strides=(per_row * CHUNK, 3, 1))


def _fingerprint(folder: pathlib.Path, split: str) -> str:
    """Changes whenever the prepared files do."""
    facts = [f"{_FORMAT} {split}"]
    for file in sorted(folder.glob("*record*")):
        stat = file.stat()
        facts.append(f"{file.name} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def _build(folder: pathlib.Path, name: str, scale: int, split: str, data_dir: pathlib.Path) -> None:
    pairs = open_pairs(name, scale=scale, split=split, data_dir=data_dir)
    names, sizes = [], []
    starts: dict[str, list[int]] = {"lr": [0], "hr": [0]}
    bar = tqdm.tqdm(total=len(pairs), unit="image", desc=f"decoding {name} ×{scale} {split}")
    # Written, not mapped: where the disk is full, writing raises an error, and a mapping would kill the process.
    with bar, (folder / "lr").open("wb") as lr, (folder / "hr").open("wb") as hr:
        for pair in in_order(pairs.__getitem__, range(len(pairs))):
            names.append(pair.name)
            sizes.append(pair.lr.shape[:2])
            for key, file, pixels in (("lr", lr, pair.lr), ("hr", hr, pair.hr)):
                height, width = pixels.shape[:2]
                rows = np.zeros((height, row_chunks(width) * CHUNK), np.uint8)
                rows[:, : 3 * width] = pixels.reshape(height, 3 * width)
                file.write(rows.data)
                starts[key].append(starts[key][-1] + rows.size // CHUNK)
            bar.update()
    if starts["hr"][-1] > np.iinfo(np.int32).max:
        raise UserError(f"{name} ×{scale} has more than 250 GB of pixels: train on a part of it")
    np.savez(
        folder / "index.npz",
        names=np.array(names),
        sizes=np.array(sizes, np.int32),
        lr_start=np.array(starts["lr"][:-1], np.int32),
        hr_start=np.array(starts["hr"][:-1], np.int32),
    )


def open_cache(name: str, *, scale: int, split: str = "train", data_dir: str | os.PathLike[str] | None = None) -> Cache:
    """Opens a split's decoded pixels, decoding them first where that has not been done yet.

    Safe when several processes ask at once (one decodes, the others wait) and when the one that decodes is killed.
    A dataset that was prepared anew is decoded anew.

    Args:
      name: a prepared dataset, see `a2f_jax.data.prepare`.
      scale: the scale of the pairs.
      split: `"train"` or `"validation"`.
      data_dir: where datasets are prepared.

    Raises:
      UserError: the dataset is not prepared, or the disk is full or read-only.
    """
    name = dataset_name(name)
    dataset = dataset_folder(name, scale=scale, data_dir=data_dir)
    decoded = dataset.parent / "decoded"
    folder = decoded / f"{split}-{_fingerprint(dataset, split)}"
    try:
        if not folder.is_dir():
            decoded.mkdir(exist_ok=True)
            with locked(decoded / f"{split}.lock"):
                if not folder.is_dir():
                    # Whatever else is there was left by a process that died, or is of an older preparation.
                    for old in decoded.glob(f"{split}-*"):
                        shutil.rmtree(old)
                    partial = decoded / f"{split}-partial"
                    partial.mkdir()
                    try:
                        _build(partial, name, scale, split, dataset.parents[2])
                        os.replace(partial, folder)
                    finally:
                        shutil.rmtree(partial, ignore_errors=True)
        with np.load(folder / "index.npz") as index:
            return Cache(
                scale,
                index["names"].tolist(),
                index["sizes"],
                _mapped(folder / "lr"),
                _mapped(folder / "hr"),
                index["lr_start"],
                index["hr_start"],
            )
    except OSError as error:
        raise UserError(
            f"cannot keep decoded images in {decoded}: {error.strerror or error}. Prepare the dataset on another disk "
            "with --data-dir"
        ) from error


def _mapped(file: pathlib.Path) -> np.ndarray:
    # As a plain array: every view of a memmap pays for being one.
    return np.memmap(file, np.uint8, "r").view(np.ndarray).reshape(-1, CHUNK)
