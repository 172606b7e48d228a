"""Finds the LR–HR pairs in folders and archives, in the layouts in which datasets are distributed."""

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


class Source(NamedTuple):
    """The files that a pair is read from.

    Attributes:
      name: the name of the pair.
      hr: the HR file.
      lr: the LR file, or None if LR is computed from HR.
      columns: the range of the HR columns to use, as fractions of the width.
    """

    name: str
    hr: AnyPath
    lr: AnyPath | None = None
    columns: tuple[float, float] = (0.0, 1.0)

    def read(self, scale: int) -> Pair:
        """Reads the pair.

        HR is cropped at the right and bottom to a multiple of the scale. Without an LR file, LR is computed from HR by
        `matlab_bicubic`.

        Args:
          scale: the scale of the pair.

        Raises:
          UserError: a file cannot be read, HR is smaller than the scale, or the sizes of LR and HR do not match.
        """
        hr = read_rgb(self.hr)
        left, right = (round(fraction * hr.shape[1]) for fraction in self.columns)
        hr = hr[:, left:right]
        height, width = (size // scale for size in hr.shape[:2])
        if not (height and width):
            raise UserError(f"{self.hr} is too small to be the HR image of a ×{scale} pair: remove it")
        hr = hr[: height * scale, : width * scale]
        if self.lr is None:
            return Pair(self.name, matlab_bicubic(hr, 1 / scale), hr)
        lr = read_rgb(self.lr)
        if lr.shape != (height, width, 3):
            raise UserError(
                f"{self.lr} is {lr.shape[1]}×{lr.shape[0]} pixels, but {self.hr} at 1/{scale} of its size is "
                f"{width}×{height}: replace or remove one of them"
            )
        return Pair(self.name, lr, hr)

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


Splits = dict[str, list[Source]]


def _images(folder: AnyPath) -> dict[str, AnyPath]:
    files = [f for f in folder.iterdir() if f.is_file() and f.name.lower().endswith(READABLE_SUFFIXES)]
    return {f.name: f for f in sorted(files, key=lambda f: f.name) if not f.name.startswith(".")}


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _set_folder(folder: pathlib.Path, name: str) -> pathlib.Path:
    if folder.name.lower() in BENCHMARK_SETS[name].spellings:
        return folder
    inside = [f for f in folder.iterdir() if f.is_dir() and f.name.lower() in BENCHMARK_SETS[name].spellings]
    return inside[0] if inside else folder


def benchmark(folder: pathlib.Path, name: str, scale: int) -> Splits:
    """Finds a benchmark set in the layout of SelfExSR or of the EDSR benchmark.

    Args:
      folder: the folder of the set, or its parent folder.
      name: a key of `BENCHMARK_SETS`.
      scale: the scale of the pairs.

    Returns:
      The split `test`.

    Raises:
      UserError: neither layout is recognized; the message lists what was expected and what was found.
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
        f"{own} does not contain {name} ×{scale}: expected image_SRF_{scale}/*_HR.png (SelfExSR) or HR/*.png (EDSR "
        f"benchmark), found {found}"
    )


def _div2k_part(folder: pathlib.Path, name: str) -> AnyPath | None:
    if (folder / name).is_dir():
        return folder / name
    archive = folder / f"{name}.zip"
    if not archive.is_file():
        return None
    try:
        return zipfile.Path(archive)
    except zipfile.BadZipFile as error:
        raise UserError(f"{archive} is not a complete zip archive: download it again") from error


def _descend(folder: AnyPath, *names: str) -> AnyPath:
    # Archives, and the tools that extract them, add or drop levels.
    for name in names:
        inside = folder / name
        if inside.is_dir():
            folder = inside
    return folder


def div2k(folder: pathlib.Path, scale: int) -> Splits:
    """Finds DIV2K in a folder with the official zip archives, or the folders extracted from them.

    Args:
      folder: contains `DIV2K_train_HR`, `DIV2K_train_LR_bicubic_X4`, `DIV2K_valid_HR` and `DIV2K_valid_LR_bicubic_X4`
        (for scale 4), each a folder or a `.zip` file.
      scale: the scale of the pairs.

    Returns:
      The splits `train` and `validation`.

    Raises:
      UserError: a folder, an archive or an image is missing.
    """
    splits: Splits = {}
    for split, part in (("train", "train"), ("validation", "valid")):
        hr_name = f"DIV2K_{part}_HR"
        lr_names = (f"DIV2K_{part}_LR_bicubic_X{scale}", f"DIV2K_{part}_LR_bicubic")
        hr = _div2k_part(folder, hr_name)
        lr = next((p for p in (_div2k_part(folder, n) for n in lr_names) if p is not None), None)
        for needed, there in ((hr_name, hr), (lr_names[0], lr)):
            if there is None:
                raise UserError(f"{folder} does not contain DIV2K: it has neither {needed}/ nor {needed}.zip")
        assert hr is not None and lr is not None
        hr_files = _images(_descend(hr, hr_name))
        lr_files = _images(_descend(lr, *lr_names[::-1], f"X{scale}"))
        sources = []
        for name, file in hr_files.items():
            lr_file = lr_files.get(f"{_stem(name)}x{scale}.png")
            if lr_file is None:
                raise UserError(f"{lr} has no {_stem(name)}x{scale}.png for {name}: download it again")
            sources.append(Source(_stem(name), file, lr_file))
        if not sources:
            raise UserError(f"{hr} has no images: download it again")
        splits[split] = sources
    return splits


def photographs(folder: pathlib.Path, validation: int) -> Splits:
    """Finds all images in a folder and its subfolders; LR is computed from them.

    Args:
      folder: contains HR photographs.
      validation: the number of images to hold out, chosen by a hash of their names.

    Returns:
      The split `train` and, if images are held out, `validation`.

    Raises:
      UserError: there are no images, or not enough to hold out `validation` of them.
    """
    if validation < 0:
        raise UserError(f"validation={validation} is negative: use 0 or more")
    files = {
        f.relative_to(folder).as_posix(): f for f in sorted(folder.rglob("*")) if f.suffix.lower() in READABLE_SUFFIXES
    }
    sources = [Source(name, file) for name, file in files.items() if "/." not in f"/{name}"]  # no hidden files
    if len(sources) <= validation:
        raise UserError(
            f"{folder} has {len(sources)} images ({', '.join(READABLE_SUFFIXES)}), too few to hold out {validation} "
            "and train on the rest: use a folder with more images"
        )
    shuffled = sorted(sources, key=lambda s: hashlib.sha256(s.name.encode()).digest())
    held_out = {source.name for source in shuffled[:validation]}
    splits: Splits = {"train": [s for s in sources if s.name not in held_out]}
    if held_out:
        splits["validation"] = [s for s in sources if s.name in held_out]
    return splits


def sample() -> Splits:
    """Returns the color photographs that scikit-image installs; the right quarter of each is held out.

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
    """Normalizes the name of a dataset: lower case, `_` instead of `-`, and `b100` for `bsd100`.

    Args:
      name: the name as users write it.

    Raises:
      UserError: `name` is not a valid name.
    """
    stored = name.lower().replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", stored):
        raise UserError(f"{name!r} is not a valid dataset name: use letters, digits, - and _, starting with a letter")
    return next((key for key, found in BENCHMARK_SETS.items() if stored in found.spellings), stored)


def find(name: str, folder: pathlib.Path | None, scale: int, validation: int) -> Splits:
    """Finds the pairs of a dataset.

    Args:
      name: `"sample"`, `"div2k"`, a key of `BENCHMARK_SETS`, or any other name for a folder of photographs.
      folder: contains the files; None for `"sample"`.
      scale: the scale of the pairs.
      validation: the number of images to hold out of a folder of photographs.

    Raises:
      UserError: the folder does not exist or is not recognized, two files share a name, or `validation` is given for a
        dataset that has its own splits.
    """
    if validation and name in ("sample", "div2k", *BENCHMARK_SETS):
        raise UserError(
            f"validation={validation} applies to folders of photographs only, and {name} has its own splits: omit it"
        )
    if name == "sample":
        return sample()
    if folder is None:
        raise UserError(f"the folder with the images of {name} is missing: pass it as source=DIR")
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: pass the folder with the images of {name} as source=DIR")
    if name == "div2k":
        splits = div2k(folder, scale)
    elif name in BENCHMARK_SETS:
        splits = benchmark(folder, name, scale)
    else:
        splits = photographs(folder, validation)
    for sources in splits.values():
        for first, second in itertools.pairwise(sorted(sources, key=lambda s: s.name)):
            if first.name == second.name:
                raise UserError(f"{first.hr} and {second.hr} have the same name: remove one of them")
    return splits


def fingerprint(splits: Splits) -> str:
    """Returns a digest of the files that a dataset is prepared from."""
    facts = [f"{split} {source.digest()}" for split, sources in splits.items() for source in sources]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
