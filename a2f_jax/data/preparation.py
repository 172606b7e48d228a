"""Prepares datasets: checks what is asked for, finds the images, and has them stored."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterable
from typing import Any

import numpy as np

from a2f_jax import buckets
from a2f_jax.catalog import MIN_SIZE
from a2f_jax.data.collages import COLLAGE_SIDE
from a2f_jax.data.discovery import check_folders, find, has_own_splits, unreadable_folders, unsupported_images
from a2f_jax.data.div2k import download_div2k
from a2f_jax.data.holdout import check_count
from a2f_jax.data.locations import VERSION, data_root, prepared_folder, split_sizes
from a2f_jax.data.sources import Source, Splits, check_scale, dataset_name
from a2f_jax.data.stored_pairs import is_divisible, origin, store_pairs
from a2f_jax.errors import UserError, count_of, shorten
from a2f_jax.files import as_path, check_writable, locked, resolved
from a2f_jax.progress import say
from a2f_jax.staging import cache_folder, local_copy, naming, upload_folder


def prepare(
    name: str,
    *,
    scale: int,
    data_dir: str | os.PathLike[str] | None = None,
    source: str | os.PathLike[str] | None = None,
    lr_source: str | os.PathLike[str] | None = None,
    validation: int | None = None,
    min_size: int = MIN_SIZE,
    skip_bad: bool = False,
    downscale: Iterable[float] = (),
    collages: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> pathlib.Path:
    """Prepares a dataset: reads its images once and stores LR–HR pairs for `open_pairs`.

    A dataset that is already prepared is kept, and a preparation that was interrupted is resumed. The dataset appears
    only when it is complete. Meanwhile, up to twice its size is needed on disk, and three times that of its collages.

    Which photographs are held out is decided by a hash of their names when a dataset is first prepared, and remembered
    for every further preparation of the same name in `data_dir`, at any scale: adding photographs moves none of the
    others between training and validation.

    Args:
      name: `"sample"` (the photographs that scikit-image installs), `"div2k"`, a benchmark set (`"set5"`, `"set14"`,
        `"b100"`, `"urban100"`, `"manga109"`), or a new name of letters, digits, `-` and `_` for a folder of HR
        photographs, or of pairs in folders such as `HR` and `LR`.
      scale: the scale of the pairs: 2, 3 or 4.
      data_dir: the folder to store the dataset in, which may be in a bucket (`gs://...`); by default
        `default_data_dir()`. For a bucket, the dataset is prepared in the user's cache and then uploaded.
      source: the folder with the images, which may be in a bucket. If it is omitted, DIV2K is downloaded.
      lr_source: the folder with the LR images if they are apart from the HR images in `source`; it may be in a bucket
        too. `"0801x4.png"` belongs to `"0801.png"`, `"img_001_SRF_4_LR.png"` to `"img_001_SRF_4_HR.png"`, and so do
        equal names. Both folders may contain one for the scale, such as `X4`.
      validation: the number of photographs to hold out. By default a tenth of them, at least 1 and at most 100, without
        moving any that an earlier preparation trained on.
      min_size: the smallest height and width that the LR image of a photograph may have, in pixels. Training requires
        at least the `patch_size` of its config.
      skip_bad: whether to leave out photographs that cannot be read or are too small, with a message on standard error,
        instead of refusing the dataset.
      downscale: factors below 1. Training also uses a copy of every photograph downscaled by each of them, except
        copies that are smaller than `min_size`. Photographs that are held out have no copies.
      collages: the number of images of 1024×1024 pixels to train on in addition, which are drawn from parts and colors
        of the training photographs. They are downscaled by `downscale` as well.
      overwrite: whether to replace a dataset that is already prepared.
      progress: whether to show progress bars.

    Returns:
      The folder of the prepared dataset.

    Raises:
      UserError: the source is not recognized, images in it cannot be used (all are listed), or the dataset cannot be
        written.
    """
    name = dataset_name(name)
    check_scale(scale)
    factors = _factors(downscale)
    if not isinstance(collages, int | np.integer) or collages < 0:
        raise UserError(f"collages must be a number of images, not {collages!r}", parameter="collages")
    root = data_root(data_dir)
    options: dict[str, Any] = {
        "scale": scale,
        "validation": validation,
        "min_size": min_size,
        "skip_bad": skip_bad,
        "downscale": factors,
        "collages": collages,
        "overwrite": overwrite,
        "progress": progress,
    }
    folder, lr_folder = (None if path is None else resolved(as_path(path)) for path in (source, lr_source))
    if name == "sample" and source is not None:
        raise UserError("sample has its own images: omit source, or choose another name", parameter="source")
    if lr_folder is not None and has_own_splits(name):
        raise UserError(f"{name} has its own layout: omit lr_source", parameter="lr_source")
    if folder is not None:
        check_folders(name, folder, lr_folder)
    elif lr_folder is not None:
        raise UserError(
            f"{lr_folder} has only the LR images: pass the folder with the HR images too", parameter="source"
        )
    if any(path is not None and buckets.in_bucket(path) for path in (folder, lr_folder)):
        with contextlib.ExitStack() as stack:
            copies = [path and stack.enter_context(local_copy(path)) for path in (folder, lr_folder)]
            return prepare(name, data_dir=root, source=copies[0], lr_source=copies[1], **options)
    if buckets.in_bucket(root):
        return _prepare_in_bucket(name, root, source=folder, lr_source=lr_folder, **options)
    published_splits = has_own_splits(name)
    additions = {"downscale": factors, "collages": collages}
    for parameter, value in {"validation": validation, "skip_bad": skip_bad, **additions}.items():
        if value and published_splits:
            raise UserError(
                f"{parameter} applies to folders of photographs only, and {name} has its own splits: omit it",
                parameter=parameter,
            )
    if published_splits:
        validation = None
    if not (isinstance(min_size, int | np.integer) and min_size >= 1):
        raise UserError(f"min_size must be an integer of at least 1, not {min_size!r}", parameter="min_size")
    if collages and min_size > COLLAGE_SIDE // scale:
        raise UserError(
            f"the LR images of collages have {COLLAGE_SIDE // scale} pixels per side, and min_size is {min_size}: "
            "omit collages, or pass a smaller min_size",
            parameter="min_size",
        )
    for parameter, value in additions.items():
        if value and folder is None:
            raise UserError(f"{parameter} requires the folder with the photographs", parameter="source")
    target = root / name / f"x{scale}" / VERSION
    if folder is None and not overwrite and (ready := prepared_folder(name, scale, root)):
        _refuse_other_validation(ready, validation)
        return ready
    check_writable(target)
    if folder is None and name == "div2k":
        folder = root / "downloads" / "div2k"
        download_div2k(scale, folder, progress=progress)
    if folder is not None and folder != root and (ready := prepared_folder(name, scale, folder)):
        raise UserError(f"{ready} is already prepared: use {folder} as the folder of datasets", parameter="data_dir")
    try:
        if folder and not published_splits and (unreadable := unreadable_folders(folder)):
            _refuse_or_leave_out(f"folders that cannot be read: {shorten(unreadable)}", skip_bad)
        splits = _with_valid_names(find(name, folder, scale, lr_folder), skip_bad)
        if is_divisible(splits):
            check_count(validation, len(splits["train"]))
        elif validation:
            raise UserError(f"{folder} already contains a validation split: omit validation", parameter="validation")
        else:
            validation = None
        for parameter, value in additions.items():
            if value and any(source.lr for source in splits["train"]):
                raise UserError(f"{name} has LR images of its own: omit {parameter}", parameter=parameter)
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent / "prepare.lock"):
            if overwrite or not target.exists():
                if folder and not published_splits and (unsupported := unsupported_images(folder)):
                    say(f"left out, in unsupported formats: {shorten(unsupported)}")
                store_pairs(
                    name, scale, splits, target, validation, min_size, skip_bad, factors, int(collages), progress
                )
                return target
            # What it was prepared from, the smallest side in it, and, if images were left out, the min_size; earlier
            # versions did not record the latter two.
            record = (target / "source.txt").read_text(errors="replace").split()
            if record[:1] != [origin(splits, factors, int(collages))]:
                raise UserError(
                    f"{target} was prepared from different files or with other values of downscale or collages: "
                    "overwrite it, or choose another name",
                    parameter="overwrite",
                )
            smallest = int(record[1]) if len(record) > 1 else min_size
            if smallest < min_size and not published_splits:
                raise UserError(
                    f"{target} has LR images with {smallest} pixels per side, and min_size is {min_size}: pass a "
                    "smaller min_size, or overwrite it",
                    parameter="overwrite",
                )
            if len(record) > 2 and int(record[2]) > min_size:
                raise UserError(
                    f"{target} was prepared with min_size {record[2]}, which left out smaller images: overwrite it, or "
                    "choose another name",
                    parameter="overwrite",
                )
            _refuse_other_validation(target, validation)
    except OSError as error:
        raise UserError(f"cannot prepare {target}: {error}") from error
    return target


def _prepare_in_bucket(name: str, root: pathlib.Path, *, scale: int, overwrite: bool, **options: Any) -> pathlib.Path:
    if not overwrite and options["source"] is None and (ready := prepared_folder(name, scale, root)):
        _refuse_other_validation(ready, options["validation"])
        return ready
    target = root / name / f"x{scale}" / VERSION
    check_writable(target)
    work = cache_folder(root, "prepare")
    local = work / target.relative_to(root)
    try:
        work.mkdir(parents=True, exist_ok=True)
        with locked(work / "prepare.lock"), buckets.Claim(target.parent / "prepare.lock"), naming(work, root):
            # What is known about the datasets in the bucket, in place of the datasets themselves. What an interrupted
            # preparation has left is beside it.
            for old in work.glob(f"{name}/x*/{VERSION}"):
                shutil.rmtree(old)
            for record in ("assignment.json", "source.txt", "dataset_info.json"):
                for file in (root / name).glob(f"x*/{VERSION}/{record}"):
                    (work / file.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
                    buckets.download(file, work / file.relative_to(root))
            if not (local / "dataset_info.json").exists():  # absent, or not completely uploaded
                shutil.rmtree(local, ignore_errors=True)
            prepare(name, scale=scale, data_dir=work, overwrite=overwrite, **options)
            if any(local.glob("*array_record*")):
                upload_folder(local, target, last="dataset_info.json")
                shutil.rmtree(local)
    except BlockingIOError as error:
        raise UserError(f"another process is preparing {target}: wait for it to end") from error
    except OSError as error:
        raise UserError(f"cannot prepare {target} in {work}: {error}") from error
    return target


def _refuse_or_leave_out(what: str, skip_bad: bool) -> None:
    if not skip_bad:
        raise UserError(f"the source has {what}; fix or remove them, or leave them out", parameter="skip_bad")
    say(f"left out: {what}")


def _with_valid_names(splits: Splits, skip_bad: bool) -> Splits:
    def valid(source: Source) -> bool:
        return all(_is_unicode(name) for name in (source.name, source.hr.name, source.lr.name if source.lr else ""))

    invalid = [source.name for sources in splits.values() for source in sources if not valid(source)]
    if not invalid:
        return splits
    printable = [name.encode(errors="backslashreplace").decode() for name in invalid]
    _refuse_or_leave_out(f"images whose file names are not UTF-8: {shorten(printable)}", skip_bad)
    left = {split: [source for source in sources if valid(source)] for split, sources in splits.items()}
    if not left.get("train", left.get("test")):
        raise UserError("no image can be used: rename the files", parameter="source")
    return left


def _is_unicode(name: str) -> bool:
    # Python represents the bytes of a file name that cannot be decoded by surrogates.
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _factors(downscale: Iterable[float]) -> tuple[float, ...]:
    try:
        factors = {float(factor) for factor in downscale}
    except (TypeError, ValueError) as error:
        raise UserError(
            f"downscale must be several factors, such as (0.7, 0.5), not {downscale!r}", parameter="downscale"
        ) from error
    if not all(0 < factor < 1 for factor in factors):
        raise UserError(
            f"downscale must be factors between 0 and 1, not {' '.join(map(str, sorted(factors)))}",
            parameter="downscale",
        )
    return tuple(sorted(factors, reverse=True))


def _refuse_other_validation(target: pathlib.Path, validation: int | None) -> None:
    there = split_sizes(target).get("validation", 0)
    if validation is not None and validation != there:
        raise UserError(
            f"{target} was prepared with {count_of(there, 'validation image')} instead of {validation}: overwrite it, "
            "or choose another name",
            parameter="overwrite",
        )
