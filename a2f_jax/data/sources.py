"""Recognises the folders and archives that people have, as lists of image pairs."""

import hashlib
import itertools
import pathlib
import re
import zipfile
from typing import NamedTuple

import numpy as np

from a2f_jax.catalogue import BENCHMARK_SETS, READABLE_SUFFIXES
from a2f_jax.data.matlab_bicubic import matlab_bicubic
from a2f_jax.errors import UserError
from a2f_jax.images import read_rgb

# The colour photographs that scikit-image installs (the others are downloaded on demand).
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
    """An image in two sizes.

    Attributes:
      name: unique within its dataset.
      lr: uint8 `[h, w, 3]`.
      hr: uint8 `[scale · h, scale · w, 3]`.
    """

    name: str
    lr: np.ndarray
    hr: np.ndarray


class Source(NamedTuple):
    """Where a pair comes from.

    Attributes:
      name: the pair's name.
      hr: the HR file.
      lr: the LR file; None where it is to be made from HR.
      columns: the part of HR's width that is taken, as fractions.
    """

    name: str
    hr: AnyPath
    lr: AnyPath | None = None
    columns: tuple[float, float] = (0.0, 1.0)

    def read(self, scale: int) -> Pair:
        """Reads the pair; HR is cropped to a multiple of the scale, LR made by MATLAB's bicubic where it is missing.

        Raises:
          UserError: a file cannot be read, is too small, or the two do not fit together.
        """
        hr = read_rgb(self.hr)
        left, right = (round(fraction * hr.shape[1]) for fraction in self.columns)
        hr = hr[:, left:right]
        height, width = (size // scale for size in hr.shape[:2])
        if not (height and width):
            raise UserError(f"{self.hr} is too small to be HR of a pair ×{scale}: leave it out")
        hr = hr[: height * scale, : width * scale]
        if self.lr is None:
            return Pair(self.name, matlab_bicubic(hr, 1 / scale), hr)
        lr = read_rgb(self.lr)
        if lr.shape != (height, width, 3):
            raise UserError(
                f"{self.lr} is {lr.shape[1]}×{lr.shape[0]}, but {self.hr} ×1/{scale} would be {width}×{height}: "
                "replace or remove one of them"
            )
        return Pair(self.name, lr, hr)

    def digest(self) -> str:
        """A digest of the name, and of the files' names, sizes and times (checksums in an archive)."""
        facts = [f"{self.name} {self.columns}"]
        for file in (self.hr, self.lr):
            if isinstance(file, zipfile.Path):
                info = file.root.getinfo(file.at)
                facts.append(f"{info.filename} {info.file_size} {info.CRC}")
            elif file is not None:
                stat = file.stat()
                facts.append(f"{file.name} {stat.st_size} {stat.st_mtime_ns}")
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


Splits = dict[str, list[Source]]


def _images(folder: AnyPath) -> dict[str, AnyPath]:
    """The image files directly in a folder by name, in order."""
    files = [f for f in folder.iterdir() if f.is_file() and f.name.lower().endswith(READABLE_SUFFIXES)]
    return {f.name: f for f in sorted(files, key=lambda f: f.name) if not f.name.startswith(".")}


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _set_folder(folder: pathlib.Path, name: str) -> pathlib.Path:
    """The set's own folder: the one given, or the one of the set's name inside it."""
    if folder.name.lower() in BENCHMARK_SETS[name].spellings:
        return folder
    inside = [f for f in folder.iterdir() if f.is_dir() and f.name.lower() in BENCHMARK_SETS[name].spellings]
    return inside[0] if inside else folder


def benchmark(folder: pathlib.Path, name: str, scale: int) -> Splits:
    """Finds a benchmark set in either layout people have.

    Args:
      folder: the set's folder, or one that holds it.
      name: a key of `BENCHMARK_SETS`.
      scale: the scale of the pairs.

    Returns:
      The split `test`.

    Raises:
      UserError: neither layout is there; the message says what was looked for and what was found.
    """
    own = _set_folder(folder, name)
    selfexsr = own / f"image_SRF_{scale}"
    if selfexsr.is_dir():
        files = _images(selfexsr)
        pairs = {f: f.replace("_HR.", "_LR.") for f in files if "_HR." in f}
        if pairs:
            return {
                "test": [Source(f.partition(f"_SRF_{scale}")[0], files[f], files.get(lr)) for f, lr in pairs.items()]
            }
    if (own / "HR").is_dir():
        hr = _images(own / "HR")
        lr_folder = own / "LR_bicubic" / f"X{scale}"
        lr = {_stem(n): f for n, f in _images(lr_folder).items()} if lr_folder.is_dir() else {}
        if hr:
            return {"test": [Source(_stem(n), f, lr.get(f"{_stem(n)}x{scale}")) for n, f in hr.items()]}
    found = ", ".join(sorted(f.name for f in own.iterdir())[:6]) or "nothing"
    raise UserError(
        f"{own} is not {name} ×{scale}: neither image_SRF_{scale}/*_HR.png (SelfExSR) nor HR/*.png (EDSR benchmark) "
        f"is there, but {found}"
    )


def _div2k_part(folder: pathlib.Path, name: str) -> AnyPath | None:
    """A folder of the official data, extracted or as a zip."""
    if (folder / name).is_dir():
        return folder / name
    archive = folder / f"{name}.zip"
    if not archive.is_file():
        return None
    try:
        return zipfile.Path(archive)
    except zipfile.BadZipFile as error:
        raise UserError(f"{archive} is not a whole zip archive: download it again") from error


def _descend(folder: AnyPath, *names: str) -> AnyPath:
    """Goes down into those of the named folders that are there: archives and people add or drop levels."""
    for name in names:
        inside = folder / name
        if inside.is_dir():
            folder = inside
    return folder


def div2k(folder: pathlib.Path, scale: int) -> Splits:
    """Finds DIV2K in a folder with the official zip archives or what was extracted from them.

    Args:
      folder: holds `DIV2K_train_HR`, `DIV2K_train_LR_bicubic_X4`, `DIV2K_valid_HR`, `DIV2K_valid_LR_bicubic_X4`,
        each a folder or a `.zip`, as published.
      scale: the scale of the pairs.

    Returns:
      The splits `train` and `validation`.

    Raises:
      UserError: one of them is missing or incomplete.
    """
    splits: Splits = {}
    for split, part in (("train", "train"), ("validation", "valid")):
        hr_name = f"DIV2K_{part}_HR"
        lr_names = (f"DIV2K_{part}_LR_bicubic_X{scale}", f"DIV2K_{part}_LR_bicubic")
        hr = _div2k_part(folder, hr_name)
        lr = next((p for p in (_div2k_part(folder, n) for n in lr_names) if p is not None), None)
        for needed, there in ((hr_name, hr), (lr_names[0], lr)):
            if there is None:
                raise UserError(f"{folder} is not DIV2K: it has neither {needed}/ nor {needed}.zip")
        assert hr is not None and lr is not None
        hr_files = _images(_descend(hr, hr_name))
        lr_files = _images(_descend(lr, *lr_names[::-1], f"X{scale}"))
        sources = []
        for name, file in hr_files.items():
            lr_file = lr_files.get(f"{_stem(name)}x{scale}.png")
            if lr_file is None:
                raise UserError(f"{lr} has no {_stem(name)}x{scale}.png for {name}: get it again")
            sources.append(Source(_stem(name), file, lr_file))
        if not sources:
            raise UserError(f"{hr} has no images: get it again")
        splits[split] = sources
    return splits


def photographs(folder: pathlib.Path, validation: int) -> Splits:
    """Finds all images in a folder and the folders inside it; LR will be made.

    Args:
      folder: holds HR photographs.
      validation: how many are held out. Which ones depends on their names alone.

    Returns:
      The splits `train` and, if any are held out, `validation`.

    Raises:
      UserError: there are no images, or no more than are to be held out.
    """
    if validation < 0:
        raise UserError(f"--validation {validation} is less than none: choose 0 or more")
    files = {
        f.relative_to(folder).as_posix(): f for f in sorted(folder.rglob("*")) if f.suffix.lower() in READABLE_SUFFIXES
    }
    sources = [Source(name, file) for name, file in files.items() if "/." not in f"/{name}"]  # none that are hidden
    if len(sources) <= validation:
        raise UserError(
            f"{folder} has {len(sources)} images ({', '.join(READABLE_SUFFIXES)}), of which {validation} are to "
            "be held out: name a folder with more"
        )
    by_chance = sorted(sources, key=lambda s: hashlib.sha256(s.name.encode()).digest())
    held_out = {source.name for source in by_chance[:validation]}
    splits: Splits = {"train": [s for s in sources if s.name not in held_out]}
    if held_out:
        splits["validation"] = [s for s in sources if s.name in held_out]
    return splits


def sample() -> Splits:
    """The colour photographs that scikit-image installs; the right quarter of each is held out.

    Returns:
      The splits `train` and `validation`.
    """
    import skimage

    folder = pathlib.Path(skimage.__file__).parent / "data"
    return {
        "train": [Source(_stem(n), folder / n, columns=(0.0, 0.75)) for n in _SAMPLE],
        "validation": [Source(_stem(n), folder / n, columns=(0.75, 1.0)) for n in _SAMPLE],
    }


def dataset_name(name: str) -> str:
    """Returns a dataset's name as it is stored: lower case, `_` for `-`, `b100` for `bsd100`.

    Raises:
      UserError: it cannot be one.
    """
    stored = name.lower().replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", stored):
        raise UserError(f"{name!r} cannot be a dataset's name: use letters, digits, - and _, a letter first")
    return next((key for key, found in BENCHMARK_SETS.items() if stored in found.spellings), stored)


def find(name: str, folder: pathlib.Path | None, scale: int, validation: int) -> Splits:
    """Finds the pairs of a dataset.

    Args:
      name: `"sample"`, `"div2k"`, a key of `BENCHMARK_SETS`, or any other name for a folder of photographs.
      folder: where its files are; not needed for `"sample"`.
      scale: the scale of the pairs.
      validation: images to hold out of a folder of photographs.

    Raises:
      UserError: the folder is missing or not recognised, files share a name, or images are to be held out of a
        dataset that has its own split.
    """
    if validation and name in ("sample", "div2k", *BENCHMARK_SETS):
        raise UserError(f"--validation {validation} is for folders of photographs, and {name} has splits: leave it out")
    if name == "sample":
        return sample()
    if folder is None:
        raise UserError(f"{name} needs the folder that its images are in: add --source DIR")
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name the one that holds {name}")
    if name == "div2k":
        splits = div2k(folder, scale)
    elif name in BENCHMARK_SETS:
        splits = benchmark(folder, name, scale)
    else:
        splits = photographs(folder, validation)
    for sources in splits.values():
        for first, second in itertools.pairwise(sorted(sources, key=lambda s: s.name)):
            if first.name == second.name:
                raise UserError(f"{first.hr} and {second.hr} share a name: remove one of them")
    return splits


def fingerprint(splits: Splits) -> str:
    """A digest of the files that a dataset is made from."""
    facts = [f"{split} {source.digest()}" for split, sources in splits.items() for source in sources]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
