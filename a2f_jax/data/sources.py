"""Names of datasets, and the files that LR–HR pairs are read from."""

import hashlib
import os
import pathlib
import re
import zipfile
from typing import NamedTuple

import numpy as np

from a2f_jax.catalog import BENCHMARK_SETS, READABLE_SUFFIXES, SCALES
from a2f_jax.data.matlab_bicubic import matlab_bicubic
from a2f_jax.errors import UserError
from a2f_jax.images import read_rgb

# The color photographs that scikit-image installs; it downloads the others on demand.
_SAMPLE = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "motorcycle_left.png",
    "rocket.jpg",
)


AnyPath = pathlib.Path | zipfile.Path


class Pair(NamedTuple):
    """An image in low and high resolution.

    Attributes:
      name: unique within the dataset.
      lr: uint8 `[h, w, 3]`.
      hr: uint8 `[scale · h, scale · w, 3]`.
    """

    name: str
    lr: np.ndarray
    hr: np.ndarray


def _lr_sides(side: int, scale: int) -> set[int]:
    """Returns the LR sides, in pixels, of an HR side that is not necessarily a multiple of the scale.

    Before it was downscaled, HR may have been cropped to a multiple of the scale, not cropped at all (MATLAB's
    `imresize` then rounds up), or cropped to a multiple of 12, as BasicSR does for all scales at once.
    """
    return {side // scale, -(-side // scale), side // 12 * 12 // scale}


class TooSmallError(UserError):
    """An image is too small for a dataset."""


class Source(NamedTuple):
    """The files that a pair is read from.

    Attributes:
      name: the name of the pair.
      hr: the HR file.
      lr: the LR file, or None if LR is computed from HR.
      columns: the range of the HR columns to use, as fractions of the width.
      factor: what HR is downscaled by before anything else.
    """

    name: str
    hr: AnyPath
    lr: AnyPath | None = None
    columns: tuple[float, float] = (0.0, 1.0)
    factor: float = 1.0

    def downscaled(self, factor: float) -> "Source":
        """Returns the source of a downscaled copy of the pair, with a name of its own such as `"0801.png@0.5"`."""
        return self._replace(name=f"{self.name}@{factor}", factor=factor)

    def read(self, scale: int) -> Pair:
        """Reads the pair.

        HR and LR are cropped at the right and bottom to the area that both show. Without an LR file, LR is computed
        from HR by `matlab_bicubic`.

        Args:
          scale: the scale of the pair.

        Raises:
          UserError: a file cannot be read, HR is smaller than the scale, or the sizes of LR and HR do not match.
        """
        hr, lr = self._read_files(scale)
        return Pair(self.name, matlab_bicubic(hr, 1 / scale) if lr is None else lr, hr)

    def hr_size(self, scale: int) -> tuple[int, int]:
        """Returns the height and width of the HR image in pixels, without computing LR.

        Raises:
          UserError: `read` cannot read the pair.
        """
        height, width, _ = self._read_files(scale)[0].shape
        return height, width

    def _read_files(self, scale: int) -> tuple[np.ndarray, np.ndarray | None]:
        hr = read_rgb(self.hr)
        left, right = (round(fraction * hr.shape[1]) for fraction in self.columns)
        hr = hr[:, left:right]
        if self.factor != 1:
            hr = matlab_bicubic(hr, self.factor)
        height, width = (side // scale for side in hr.shape[:2])
        if not (height and width):
            raise TooSmallError(f"{self.hr} is too small to be the HR image of a ×{scale} pair: remove it")
        if self.lr is None:
            return hr[: height * scale, : width * scale], None
        lr = read_rgb(self.lr)
        if any(lr_side not in _lr_sides(side, scale) for side, lr_side in zip(hr.shape[:2], lr.shape[:2], strict=True)):
            raise UserError(
                f"{self.lr} is {lr.shape[1]}×{lr.shape[0]} pixels, but {self.hr} at 1/{scale} of its size is "
                f"{width}×{height}: replace or remove one of them"
            )
        height, width = min(height, lr.shape[0]), min(width, lr.shape[1])
        return hr[: height * scale, : width * scale], lr[:height, :width]

    def digest(self) -> str:
        """Returns a digest of the name and of the files: name, size, and modification time (in an archive, the CRC)."""
        facts = [f"{self.name} {self.columns}"]
        for file in (self.hr, self.lr):
            if isinstance(file, zipfile.Path):
                info = file.root.getinfo(file.at)
                facts.append(f"{info.filename} {info.file_size} {info.CRC}")
            elif file is not None:
                stat = file.stat()
                facts.append(f"{file.name} {stat.st_size} {stat.st_mtime_ns}")
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]

    def stored_bytes(self) -> int:
        """Returns the size of the HR file in bytes."""
        if isinstance(self.hr, zipfile.Path):
            return self.hr.root.getinfo(self.hr.at).file_size
        return self.hr.stat().st_size


Splits = dict[str, list[Source]]


def fingerprint(splits: Splits) -> str:
    """Returns a digest of the files that a dataset is prepared from."""
    facts = [f"{split} {source.digest()}" for split, sources in splits.items() for source in sources]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def image_files(folder: AnyPath) -> dict[str, AnyPath]:
    """Returns the image files directly in a folder by name, in order, without hidden ones."""
    files = [f for f in folder.iterdir() if f.is_file() and f.name.lower().endswith(READABLE_SUFFIXES)]
    return {f.name: f for f in sorted(files, key=lambda f: f.name) if not f.name.startswith(".")}


def stem(name: str) -> str:
    """Returns a file name without its suffix."""
    return name.rpartition(".")[0]


def sample() -> Splits:
    """Returns the color photographs that scikit-image installs; the right quarter of each is held out.

    Returns:
      The splits `train` and `validation`.
    """
    import skimage

    folder = pathlib.Path(skimage.__file__).parent / "data"
    return {
        "train": [Source(stem(n), folder / n, columns=(0.0, 0.75)) for n in _SAMPLE],
        "validation": [Source(stem(n), folder / n, columns=(0.75, 1.0)) for n in _SAMPLE],
    }


def check_scale(scale: int) -> None:
    """Checks that pairs can have a scale.

    Raises:
      UserError: the scale is not 2, 3 or 4.
    """
    if not isinstance(scale, int | np.integer) or scale not in SCALES:
        raise UserError(f"scale must be one of {', '.join(map(str, SCALES))}, not {scale!r}", parameter="scale")


def is_folder_path(name: str | os.PathLike[str]) -> bool:
    """Returns whether what stands for a dataset is a path, such as `"photos/"`, and not the name of a dataset."""
    return not isinstance(name, str) or "/" in name or name in (".", "..", "~")


def dataset_name(name: str) -> str:
    """Normalizes the name of a dataset: lower case, `_` instead of `-`, and `b100` for `bsd100`.

    Args:
      name: the name as users write it.

    Raises:
      TypeError: `name` is not a string, but for example the path of a folder.
      UserError: `name` is not a valid name.
    """
    if not isinstance(name, str):
        raise TypeError(
            f"{name!r} is not the name of a dataset, such as 'div2k': pass a folder as `source` or `data_dir`"
        )
    stored = name.lower().replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", stored):
        raise UserError(f"{name!r} is not a valid dataset name: use letters, digits, - and _, starting with a letter")
    return next((key for key, found in BENCHMARK_SETS.items() if stored in found.spellings), stored)
