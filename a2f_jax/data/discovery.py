"""Finds the images of a dataset in the folders and archives in which it is distributed."""

import itertools
import pathlib

from a2f_jax.catalog import BENCHMARK_SETS, OTHER_IMAGE_SUFFIXES, READABLE_SUFFIXES
from a2f_jax.data.div2k import find_div2k
from a2f_jax.data.pairing import (
    is_lr_folder,
    lr_and_hr_folders,
    pairs_in_folders,
    pairs_in_one_folder,
    pairs_in_two_folders,
    pairs_side_by_side,
)
from a2f_jax.data.sources import Source, Splits, sample
from a2f_jax.errors import UserError, shorten
from a2f_jax.files import walk


def has_own_splits(name: str) -> bool:
    """Returns whether a dataset is published with its splits, so that no images are held out of it."""
    return name in ("sample", "div2k", *BENCHMARK_SETS)


def _subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
    try:
        return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    except PermissionError:  # somewhere below the folder that was passed, which need not be readable
        return []


def _set_folders(folder: pathlib.Path, name: str) -> list[pathlib.Path]:
    """Returns folders that may be a benchmark set: the given one, or those named like the set up to two levels down."""
    own = folder.name.lower()
    if own in BENCHMARK_SETS[name].spellings:
        return [folder]
    other = next((found.title for found in BENCHMARK_SETS.values() if own in found.spellings), None)
    if other:
        raise UserError(f"{folder} is {other}, not {name}: pass the folder of {name}, or the one that contains both")
    level = _subfolders(folder)
    for _ in range(2):
        if named := [f for f in level if f.name.lower() in BENCHMARK_SETS[name].spellings]:
            return named
        level = [inside for f in level for inside in _subfolders(f)]
    return [folder]


def benchmark(folder: pathlib.Path, name: str, scale: int) -> Splits:
    """Finds a benchmark set.

    Recognized are the layout of SelfExSR (`image_SRF_4/*_HR.png`, `*_LR.png`), those of `pairs_in_folders` (EDSR
    benchmark, BasicSR), and the images directly in a folder with the name of the set. LR is computed from HR only if
    there are no LR images for this scale.

    Args:
      folder: the folder of the set, or one that contains it up to two levels down, such as the parent of
        `benchmark/Set5`.
      name: a key of `BENCHMARK_SETS`.
      scale: the scale of the pairs.

    Returns:
      The split `test`.

    Raises:
      UserError: no layout is recognized, several are, or LR and HR images do not correspond.
    """
    candidates = _set_folders(folder, name)
    found = {}
    for own in candidates:
        selfexsr = own / f"image_SRF_{scale}"
        pairs = pairs_in_one_folder(selfexsr, scale) if selfexsr.is_dir() else []
        pairs = pairs or pairs_in_folders(own, scale, flat=own.name.lower() in BENCHMARK_SETS[name].spellings)
        if pairs:
            found[own] = pairs
    if len(found) > 1:
        raise UserError(f"{name} is in {shorten(list(map(str, found)))}: pass one of these folders")
    if found:
        return {"test": next(iter(found.values()))}
    contents = shorten(sorted(f.name for f in candidates[0].iterdir()), most=6) or "nothing"
    raise UserError(
        f"{candidates[0]} does not contain {name} ×{scale}: expected image_SRF_{scale}/*_HR.png (SelfExSR), HR/*.png "
        f"(EDSR benchmark) or GTmod12/*.png (BasicSR), found {contents}"
    )


# Names of the folders of a paired dataset's own splits.
_SPLIT_FOLDERS = {"train": ("train", "training"), "validation": ("val", "valid", "validation")}


def photographs(folder: pathlib.Path, scale: int) -> Splits:
    """Finds a dataset without a published layout: photographs, or LR and HR images in folders of their own.

    Folders of LR and HR images, such as `LR` and `HR`, are recognized as pairs, directly in `folder` or in its
    subfolders `train` and `val`, and so are LR and HR images side by side, such as `a_LR.png` and `a_HR.png`. Otherwise
    all images in the folder and its subfolders are HR, and LR is computed.

    Args:
      folder: contains the images.
      scale: the scale of the pairs.

    Returns:
      The split `train`, of which images may be held out, or the splits `train` and `validation`.

    Raises:
      UserError: there are no images, or LR images without HR images.
    """
    if all(lr_and_hr_folders(folder)):
        return {"train": pairs_in_folders(folder, scale)}
    own = {
        split: next((f for f in _subfolders(folder) if f.name.lower() in names), None)
        for split, names in _SPLIT_FOLDERS.items()
    }
    if own["train"] and own["validation"] and all(lr_and_hr_folders(own["train"])):
        return {split: pairs_in_folders(f, scale) for split, f in own.items() if f}
    if pairs := pairs_side_by_side(folder, scale):
        return {"train": pairs}
    sources = []
    for name in _visible_files(folder):
        file = folder / name
        if file.suffix.lower() not in READABLE_SUFFIXES or not file.is_file():
            continue
        if any(is_lr_folder(part) for part in name.split("/")[:-1]):
            raise UserError(
                f"{file.parent} appears to contain LR images: pass the folder that directly contains the folders of LR "
                "and HR images, or only that of the HR images; rename it if it contains photographs",
                parameter="source",
            )
        sources.append(Source(name, file))
    held_out = own["validation"]
    if sources and held_out and not own["train"] and all(s.name.startswith(f"{held_out.name}/") for s in sources):
        raise UserError(
            f"{folder} has no images but those in {held_out}, which by its name are for validation: pass the folder "
            f"that also has images to train on, or {held_out} itself",
            parameter="source",
        )
    return {"train": sources}


def _visible_files(folder: pathlib.Path) -> list[str]:
    files: list[tuple[str, ...]] = []
    for parent, subfolders, names in walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        parts = parent.relative_to(folder).parts
        files += [(*parts, name) for name in names if not name.startswith(".")]
    return ["/".join(parts) for parts in sorted(files)]


def unsupported_images(folder: pathlib.Path) -> list[str]:
    """Returns the names of the image files in a folder and its subfolders whose format cannot be read."""
    return [name for name in _visible_files(folder) if name.lower().endswith(OTHER_IMAGE_SUFFIXES)]


def unreadable_folders(folder: pathlib.Path) -> list[str]:
    """Returns the names of the subfolders of a folder that cannot be listed, without hidden ones."""
    errors: list[OSError] = []
    for _, subfolders, _ in walk(folder, errors.append):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
    return sorted(pathlib.Path(error.filename).relative_to(folder).as_posix() for error in errors)


def check_folders(name: str, folder: pathlib.Path, lr_folder: pathlib.Path | None) -> None:
    """Checks that the folders of a dataset's images exist and can be listed.

    Args:
      name: the name of the dataset.
      folder: contains its files.
      lr_folder: contains its LR images, or None if they are not apart.

    Raises:
      UserError: one of them is not a folder, or cannot be listed.
    """
    for path, content, parameter in (
        (folder, f"images of {name}", "source"),
        (lr_folder, "LR images", "lr_source"),
    ):
        if path is None:
            continue
        if not path.is_dir():
            raise UserError(f"{path} is not a folder: pass the folder with the {content}", parameter=parameter)
        try:
            next(path.iterdir(), None)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}", parameter=parameter) from error


def find(name: str, folder: pathlib.Path | None, scale: int, lr_folder: pathlib.Path | None = None) -> Splits:
    """Finds the pairs of a dataset.

    Args:
      name: `"sample"`, `"div2k"`, a key of `BENCHMARK_SETS`, or any other name for a folder of photographs or pairs.
      folder: contains the files; None for `"sample"`.
      scale: the scale of the pairs.
      lr_folder: contains the LR images if they are apart from the HR images, for any other name.

    Returns:
      The pairs by split, as published. Of a folder of photographs, all are in the split `train`.

    Raises:
      UserError: the folder does not exist or is not recognized, it has no images, or two files share a name.
    """
    if name == "sample":
        return sample()
    if folder is None:
        raise UserError(f"{name} is prepared from a folder of images: pass the folder", parameter="source")
    check_folders(name, folder, lr_folder)
    if name == "div2k":
        splits = find_div2k(folder, scale)
    elif name in BENCHMARK_SETS:
        splits = benchmark(folder, name, scale)
    elif lr_folder is not None:
        splits = {"train": pairs_in_two_folders(folder, lr_folder, scale)}
    else:
        splits = photographs(folder, scale)
    if not splits.get("train", splits.get("test")):
        raise UserError(f"{folder} has no images ({', '.join(READABLE_SUFFIXES)}): pass another folder")
    for sources in splits.values():
        for first, second in itertools.pairwise(sorted(sources, key=lambda s: s.name)):
            if first.name == second.name:
                raise UserError(f"{first.hr} and {second.hr} have the same name: remove one of them")
    return splits
