"""Where prepared datasets are stored, and what is known about them without opening them."""

import json
import os
import pathlib
from typing import NamedTuple

from a2f_jax.errors import UserError
from a2f_jax.files import as_path, resolved, user_cache_folder

VERSION = "1.0.0"
"""The version of prepared datasets, which names their folder."""


class Assignment(NamedTuple):
    """Which photographs of a dataset are trained on and which are held out, by name.

    Attributes:
      train: names of the images trained on.
      validation: names of the images held out.
    """

    train: frozenset[str]
    validation: frozenset[str]


def default_data_dir() -> pathlib.Path:
    """Returns the default folder of prepared datasets: `$A2F_DATA_DIR`, or one in the user's cache folder.

    Raises:
      UserError: neither exists, because the user has no home folder.
    """
    if folder := os.environ.get("A2F_DATA_DIR"):
        return as_path(folder)
    return user_cache_folder() / "data"


def data_root(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """Returns the absolute folder of prepared datasets, local or in a bucket; None stands for `default_data_dir()`."""
    return resolved(as_path(data_dir) if data_dir else default_data_dir())


def prepared_folder(name: str, scale: int, root: pathlib.Path) -> pathlib.Path | None:
    """Returns the folder of a dataset that has been prepared, or None.

    DIV2K may also have been prepared by tensorflow-datasets' own builder.
    """
    for config in (f"x{scale}", f"bicubic_x{scale}"):
        versions = sorted((root / name / config).glob("*.*.*/dataset_info.json"))
        if versions:
            return versions[-1].parent
    return None


def split_sizes(folder: pathlib.Path) -> dict[str, int]:
    """Returns the number of images in each split of a prepared dataset.

    Raises:
      UserError: the dataset is damaged.
    """
    file = folder / "dataset_info.json"
    try:
        splits = json.loads(file.read_text())["splits"]
        return {split["name"]: sum(map(int, split.get("shardLengths", []))) for split in splits}
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # not JSON, or of another structure
        raise UserError(f"{file} is damaged: prepare the dataset again and overwrite it") from error


def save_assignment(folder: pathlib.Path, assignment: Assignment) -> None:
    """Records in the folder of a dataset which images are held out."""
    facts = {key: sorted(names) for key, names in assignment._asdict().items()}
    (folder / "assignment.json").write_text(json.dumps(facts, indent=0))


def _read_assignment(file: pathlib.Path) -> Assignment:
    try:
        facts = json.loads(file.read_text())
        return Assignment(frozenset(facts["train"]), frozenset(facts["validation"]))
    except (ValueError, KeyError, TypeError) as error:  # not JSON, or of another structure
        raise UserError(f"{file} is damaged: remove it to choose the validation images anew") from error


def recorded_assignment(target: pathlib.Path) -> Assignment:
    """Returns which images were held out when a dataset was last prepared, at this scale or else at any other scale.

    Args:
      target: the folder of the dataset at a scale, `<data_dir>/<name>/x<scale>/<version>`; it need not exist.

    Raises:
      UserError: a record is damaged.
    """
    own = target / "assignment.json"
    train: set[str] = set()
    validation: set[str] = set()
    # Photographs that are new at this scale may be known at the others.
    for files in ([own] if own.is_file() else [], {*target.parents[1].glob(f"x*/{VERSION}/{own.name}")} - {own}):
        records = [_read_assignment(file) for file in files]
        known = train | validation
        validation |= {name for record in records for name in record.validation} - known
        train |= {name for record in records for name in record.train} - known - validation
    return Assignment(frozenset(train), frozenset(validation))
