"""A dataset decoded once into memory-mapped pixels.

Decoding a PNG of 2040×1400 pixels for every patch cut from it is what makes training wait for data. The cache holds
all images of a split as uint8 in two files, LR and HR, each a matrix of chunks `[chunks, 128]`: every row of an image
starts at a chunk of its own. Chunks, not bytes, are counted, so that a place in even 250 GB of pixels is an int32;
with the same layout the whole set can lie in an accelerator's memory and be cropped there.
"""

import concurrent.futures
import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tqdm

from a2f_jax.data.datasets import dataset_folder, open_pairs
from a2f_jax.errors import UserError

CHUNK = 128
"""Bytes."""

_FORMAT = "1"


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


def row_chunks(width: np.ndarray | int) -> np.ndarray | int:
    """How many chunks a row of RGB pixels takes."""
    return -(-3 * width // CHUNK)


def _view(chunks: np.ndarray, start: int, height: int, width: int) -> np.ndarray:
    per_row = int(row_chunks(width))
    rows = chunks[start : start + height * per_row].reshape(height, per_row * CHUNK)
    return (
        rows[:, : 3 * width].reshape(height, width, 3)
        if per_row * CHUNK == 3 * width
        else np.ndarray((height, width, 3), np.uint8, rows, strides=(per_row * CHUNK, 3, 1))
    )


def _starts(heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """First chunk of each image, and behind the last: int64 `[images + 1]`."""
    return np.concatenate([[0], np.cumsum(heights.astype(np.int64) * row_chunks(widths))])


def _fingerprint(folder: pathlib.Path, split: str) -> str:
    """Changes whenever the prepared files do."""
    facts = [f"{_FORMAT} {split}"]
    for file in sorted(folder.glob("*record*")):
        stat = file.stat()
        facts.append(f"{file.name} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    """Holds a lock that the operating system takes back from a process that dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(folder: pathlib.Path, name: str, scale: int, split: str, data_dir: pathlib.Path) -> None:
    pairs = open_pairs(name, scale=scale, split=split, data_dir=data_dir)
    workers = os.cpu_count() or 1
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        # Twice over the images: sizes come first, so that the files can be laid out and filled in parallel.
        sizes = np.array(list(pool.map(lambda i: pairs[i].lr.shape[:2], range(len(pairs)))), np.int32)
        starts = {k: _starts(sizes[:, 0] * s, sizes[:, 1] * s) for k, s in (("lr", 1), ("hr", scale))}
        files = {
            k: np.lib.format.open_memmap(folder / f"{k}.npy", "w+", np.uint8, (int(start[-1]), CHUNK))
            for k, start in starts.items()
        }

        def fill(i: int) -> str:
            pair = pairs[i]
            for key in ("lr", "hr"):
                pixels = getattr(pair, key)
                _view(files[key], int(starts[key][i]), *pixels.shape[:2])[:] = pixels
            return pair.name

        bar = tqdm.tqdm(total=len(pairs), unit="image", desc=f"decoding {name} ×{scale} {split}")
        with bar:
            names = []
            for done in pool.map(fill, range(len(pairs))):
                names.append(done)
                bar.update()
    for file in files.values():
        file.flush()
    np.savez(
        folder / "index.npz",
        names=np.array(names),
        sizes=sizes,
        **{f"{k}_start": start[:-1].astype(np.int32) for k, start in starts.items()},
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
    dataset = dataset_folder(name, scale=scale, data_dir=data_dir)
    decoded = dataset.parent / "decoded"
    folder = decoded / f"{split}-{_fingerprint(dataset, split)}"
    try:
        if not folder.is_dir():
            decoded.mkdir(exist_ok=True)
            with _locked(decoded / f"{split}.lock"):
                if not folder.is_dir():
                    # Whatever else is there was left by a process that died, or is of an older preparation.
                    for old in decoded.glob(f"{split}-*"):
                        shutil.rmtree(old, ignore_errors=True)
                    partial = decoded / f"{split}-partial"
                    partial.mkdir()
                    _build(partial, name, scale, split, dataset.parents[2])
                    os.replace(partial, folder)
        with np.load(folder / "index.npz") as index:
            return Cache(
                scale,
                index["names"].tolist(),
                index["sizes"],
                np.load(folder / "lr.npy", mmap_mode="r"),
                np.load(folder / "hr.npy", mmap_mode="r"),
                index["lr_start"],
                index["hr_start"],
            )
    except OSError as error:
        raise UserError(
            f"cannot keep decoded images in {decoded}: {error.strerror or error}. Prepare the dataset on another disk "
            "with --data-dir"
        ) from error
