"""Stores the pairs of a dataset with tensorflow-datasets, without TensorFlow."""

import errno
import functools
import os
import pathlib
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import BrokenExecutor

import numpy as np
from PIL import Image

from a2f_jax.data.collages import COLLAGE_SIDE, PHOTOGRAPHS, draw_collage, random_part
from a2f_jax.data.discovery import has_own_splits
from a2f_jax.data.holdout import held_out
from a2f_jax.data.locations import VERSION, Assignment, recorded_assignment, save_assignment
from a2f_jax.data.parallel import in_order
from a2f_jax.data.sources import Source, Splits, TooSmallError, fingerprint
from a2f_jax.errors import UserError, count_of, shorten
from a2f_jax.files import require_space
from a2f_jax.images import read_rgb
from a2f_jax.machine import usable_cores
from a2f_jax.progress import progress_bar, say

MAX_EXAMPLES_PER_FILE = 256  # of DIV2K, these are 1.1 GB

Example = dict[str, str]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _encode(source: Source, split: str, scale: int, min_size: int, folder: pathlib.Path) -> Example | UserError:
    try:
        digest = source.digest()
    except OSError as error:  # a file has gone since it was found
        return UserError(f"cannot read {error.filename}: {error.strerror}")
    files = {key: folder / f"{split}-{digest}-{key}.png" for key in ("lr", "hr")}
    try:
        # Files left by a preparation that was interrupted are reused.
        if not all(file.exists() for file in files.values()):
            pair = source.read(scale)
            for key, file in files.items():
                partial = file.with_suffix(".partial")
                # Level 1 is several times faster than the default and makes the files only a few percent larger.
                Image.fromarray(getattr(pair, key)).save(partial, "PNG", compress_level=1)
                os.replace(partial, file)
        with Image.open(files["lr"]) as lr:
            width, height = lr.size
        if min(width, height) < min_size:
            raise TooSmallError(
                f"{source.hr} is too small: its LR image has {width}×{height} pixels, and training requires at least "
                f"{min_size}×{min_size}"
            )
    except UserError as error:
        return error
    return {"name": source.name, **{key: str(file) for key, file in files.items()}}


def _smaller_side(file: str) -> int:
    with Image.open(file) as image:
        return min(image.size)


def _write(
    name: str, scale: int, examples: dict[str, list[Example]], work: pathlib.Path, progress: bool
) -> pathlib.Path:
    import tensorflow_datasets as tfds

    folder = work / name / f"x{scale}" / VERSION
    folder.mkdir(parents=True)
    image = functools.partial(tfds.features.Image, shape=(None, None, 3), encoding_format="png")
    info = tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity(
            name=name,
            version=tfds.core.Version(VERSION),
            data_dir=str(folder),
            module_name=__name__,
            config_name=f"x{scale}",
            config_description=f"Pairs ×{scale}.",
        ),
        features=tfds.features.FeaturesDict({"name": tfds.features.Text(), "lr": image(), "hr": image()}),
        disable_shuffling=True,
    )
    # The builders of tfds sort a split before they write it, and need TensorFlow if it has more than 1 GB.
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=MAX_EXAMPLES_PER_FILE, file_format="array_record")
    writer.initialize_splits(list(examples))
    total = sum(map(len, examples.values()))
    with progress_bar(total=total, unit="image", description=f"storing {name} ×{scale}", visible=progress) as bar:
        for split, images in examples.items():
            for first in range(0, len(images), MAX_EXAMPLES_PER_FILE):
                part = images[first : first + MAX_EXAMPLES_PER_FILE]
                writer.add_examples({split: part})
                bar.update(len(part))
    writer.close_all()
    return folder


def _copies(sources: Iterable[Source], factors: Sequence[float]) -> list[Source]:
    return [source.downscaled(factor) for source in sources for factor in factors]


def _with_copies(splits: Splits, factors: Sequence[float]) -> Splits:
    return {**splits, "copies": _copies(splits["train"], factors)} if factors else splits


def origin(splits: Splits, factors: Sequence[float], collages: int) -> str:
    """Returns a digest of what a dataset is prepared from.

    Args:
      splits: the files.
      factors: the factors of downscaled copies.
      collages: the number of collages.
    """
    files = fingerprint(_with_copies(splits, factors))
    return f"{files}+{collages}" if collages else files


def is_divisible(splits: Splits) -> bool:
    """Returns whether images can be held out, because the dataset has no splits of its own."""
    return list(splits) == ["train"]


def _check_space(
    name: str, splits: Splits, downscale: Sequence[float], collages: int, target: pathlib.Path, work: pathlib.Path
) -> None:
    # A lower bound: PNG files are larger than JPEG files of the same pixels, and every image is stored twice, as a PNG
    # file and in an array_record file. BMP and TIFF files may be uncompressed, three times as large as a PNG file.
    stored = sum(
        int(source.factor**2 * source.stored_bytes())
        // (3 if source.hr.name.lower().endswith((".bmp", ".tif", ".tiff")) else 1)
        for sources in _with_copies(splits, downscale).values()
        for source in sources
    )
    drawn = 2 * collages * COLLAGE_SIDE**2  # a PNG file of a collage has about two bytes per pixel
    stored += int(drawn * (1 + sum(factor**2 for factor in downscale)))
    needed = drawn + 2 * stored - sum(file.stat().st_size for file in work.rglob("*.png"))
    require_space(
        target.parent,
        needed,
        f"preparing {name}",
        remedy="free some space or choose another folder",
        parameter="data_dir",
    )


def _encode_all(
    name: str, scale: int, splits: Splits, work: pathlib.Path, min_size: int, skip_bad: bool, progress: bool
) -> tuple[dict[str, list[Example]], int]:
    # Returns the number of images that are too small as well.
    examples: dict[str, list[Example]] = {split: [] for split in splits}
    bad: list[UserError] = []
    total = sum(map(len, splits.values()))
    with progress_bar(total=total, unit="image", description=f"preparing {name} ×{scale}", visible=progress) as bar:
        for split, sources in splits.items():
            encode = functools.partial(_encode, split=split, scale=scale, min_size=min_size, folder=work)
            for result in in_order(encode, sources):
                if isinstance(result, UserError):
                    bad.append(result)
                else:
                    examples[split].append(result)
                bar.update()
    if not bad:
        return examples, 0
    reasons = shorten(list(map(str, bad)), most=20, separator="; ")
    if has_own_splits(name):
        raise UserError(f"{len(bad)} of {count_of(total, 'image')} of {name} cannot be used: {reasons}")
    if len(bad) == total:
        raise UserError(f"no image of {name} can be used: {reasons}")
    if not skip_bad:
        raise UserError(
            f"{len(bad)} of {count_of(total, 'image')} cannot be used: {reasons}; fix or remove them, or leave them "
            "out",
            parameter="skip_bad",
        )
    for error in bad:
        say(f"left out: {error}")
    return examples, sum(isinstance(error, TooSmallError) for error in bad)


def _draw(index: int, photographs: Sequence[Source], folder: pathlib.Path) -> None:
    rng = np.random.default_rng(index)
    chosen = rng.choice(len(photographs), min(PHOTOGRAPHS, len(photographs)), replace=False)
    collage = draw_collage([random_part(read_rgb(photographs[i].hr), rng) for i in chosen], rng)
    partial = folder / f"{index}.partial"
    Image.fromarray(collage).save(partial, "PNG", compress_level=1)
    os.replace(partial, folder / f"{index}.png")


def _draw_collages(photographs: Sequence[Source], count: int, work: pathlib.Path, progress: bool) -> list[Source]:
    if not photographs:
        raise UserError("no photograph is left to draw collages from: omit collages", parameter="collages")
    # Collages of an interrupted preparation are reused if they were made of the same photographs.
    folder = work / f"collages-{fingerprint({'train': list(photographs)})}"
    folder.mkdir(exist_ok=True)
    sources = [Source(f"collage-{i:04}", folder / f"{i}.png") for i in range(count)]
    missing = [i for i, source in enumerate(sources) if not source.hr.exists()]
    draw = functools.partial(_draw, photographs=photographs, folder=folder)
    with progress_bar(total=count, unit="image", description="drawing collages", visible=progress) as bar:
        bar.update(count - len(missing))
        # Drawing holds Python's lock: with threads, it is not faster on many cores.
        try:
            for _ in in_order(draw, missing, min(len(missing), usable_cores()), processes=True):
                bar.update()
        except BrokenExecutor as error:
            raise UserError(
                "a process that draws collages was killed, perhaps for lack of memory: stop other programs and run the "
                "same command again, which keeps the collages that are drawn"
            ) from error
    return sources


def _encode_additions(
    scale: int, drawn: Sequence[Source], copies: Sequence[Source], work: pathlib.Path, min_size: int, progress: bool
) -> tuple[list[Example], int]:
    # Returns the number of copies that are too small as well.
    additions = [*drawn, *copies]
    encode = functools.partial(_encode, split="train", scale=scale, min_size=min_size, folder=work)
    with progress_bar(total=len(additions), unit="image", description=f"downscaling ×{scale}", visible=progress) as bar:
        results = []
        for result in in_order(encode, additions):
            results.append(result)
            bar.update()
    for result in results:
        if isinstance(result, UserError) and not isinstance(result, TooSmallError):
            raise result  # its photograph could be read before
    examples = [result for result in results if not isinstance(result, UserError)]
    if missing := len(additions) - len(examples):
        say(f"left out, because they are too small: {missing} of {len(copies)} downscaled copies")
    return examples, missing


def _exchange(new: pathlib.Path, target: pathlib.Path, old: pathlib.Path) -> None:
    if target.exists():
        os.replace(target, old)
    try:
        os.replace(new, target)
    except OSError:
        if old.exists():
            os.replace(old, target)
        raise


def store_pairs(
    name: str,
    scale: int,
    splits: Splits,
    target: pathlib.Path,
    validation: int | None,
    min_size: int,
    skip_bad: bool,
    downscale: Sequence[float],
    collages: int,
    progress: bool,
) -> None:
    """Reads the images of a dataset and stores them; what was stored before is replaced at the end.

    Args:
      name: the name of the dataset.
      scale: the scale of the pairs.
      splits: where to read them.
      target: the folder to write. What an interrupted attempt has left beside it is used.
      validation: the number of photographs to hold out, or None for the default.
      min_size: the smallest side of an LR image in pixels, of folders of photographs.
      skip_bad: whether to leave out images that cannot be used.
      downscale: the factors of downscaled copies to train on.
      collages: the number of collages of the training photographs to train on.
      progress: whether to show progress bars on standard error.

    Raises:
      UserError: there is not enough disk space, or images cannot be used.
      OSError: the dataset cannot be written; nothing is left but what was there before.
    """
    work = target.with_name(f".{VERSION}.partial")  # hidden: it may be inside the folder of the photographs
    old = work / "old"
    if old.exists() and not target.exists():
        os.replace(old, target)  # the process was killed while it exchanged them
    _check_space(name, splits, downscale, collages, target, work)
    work.mkdir(exist_ok=True)
    shutil.rmtree(old, ignore_errors=True)
    # An interrupted preparation keeps its images, but array_record files cannot be continued.
    shutil.rmtree(work / name, ignore_errors=True)
    files = origin(splits, downscale, collages)
    try:
        examples, too_small = _encode_all(
            name, scale, splits, work, 1 if has_own_splits(name) else min_size, skip_bad, progress
        )
        if is_divisible(splits):
            images, before = examples["train"], recorded_assignment(target)
            chosen = held_out(
                [example["name"] for example in images],
                validation,
                validation_before=before.validation,
                train_before=before.train,
            )
            examples = {
                "train": [example for example in images if example["name"] not in chosen],
                "validation": [example for example in images if example["name"] in chosen],
            }
        if downscale or collages:
            trained = {example["name"] for example in examples["train"]}
            photographs = [source for source in splits["train"] if source.name in trained]
            drawn = _draw_collages(photographs, collages, work, progress) if collages else []
            copies = _copies([*photographs, *drawn], downscale)
            added, small_copies = _encode_additions(scale, drawn, copies, work, min_size, progress)
            examples["train"] = examples["train"] + added
            too_small += small_copies
        examples = {split: images for split, images in examples.items() if images}
        try:
            written = _write(name, scale, examples, work, progress)
        except RuntimeError as error:  # array_record reports a full disk this way
            raise OSError(errno.ENOSPC, " ".join(str(error).split())) from error
        smallest = min(_smaller_side(example["lr"]) for images in examples.values() for example in images)
        record = f"{files}\n{smallest}\n{min_size if too_small else 1}"
        (written / "source.txt").write_text(record)
        if is_divisible(splits):
            train = frozenset(example["name"] for example in images if example["name"] not in chosen)
            save_assignment(written, Assignment(train, frozenset(chosen)))
        _exchange(written, target, old)
    except OSError as error:
        if error.errno in _FULL:  # what is left would only fill the disk
            shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work)
