"""Datasets of LR–HR pairs, prepared and read by tensorflow-datasets, without TensorFlow.

A dataset is prepared once per scale: its images are stored, losslessly compressed, in array_record files in
`<data_dir>/<name>/x<scale>/1.0.0`. DIV2K prepared by tensorflow-datasets' own builder (`div2k/bicubic_x4`) can be read
too.
"""

import contextlib
import functools
import http.client
import io
import os
import pathlib
import shutil
import urllib.request
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import platformdirs
import tqdm
from PIL import Image

from a2f_jax.catalogue import BENCHMARK_SETS
from a2f_jax.data.parallel import in_order
from a2f_jax.data.sources import Pair, Source, Splits, benchmark, dataset_name, find, fingerprint
from a2f_jax.errors import UserError
from a2f_jax.files import locked

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

_VERSION = "1.0.0"
_DIV2K_URL = "https://data.vision.ee.ethz.ch/cvl/DIV2K/"


def default_data_dir() -> pathlib.Path:
    """Returns the default folder of prepared datasets: `$A2F_DATA_DIR`, or one in the user's cache folder."""
    if folder := os.environ.get("A2F_DATA_DIR"):
        return pathlib.Path(folder).expanduser()
    return platformdirs.user_cache_path("a2f_jax", appauthor=False) / "data"


def _encode(source: Source, scale: int, folder: pathlib.Path) -> dict[str, str]:
    # Files left by a preparation that was interrupted are reused.
    files = {key: folder / f"{source.digest()}-{key}.png" for key in ("lr", "hr")}
    if not all(file.exists() for file in files.values()):
        pair = source.read(scale)
        for key, file in files.items():
            partial = file.with_suffix(".partial")
            # Level 1 is several times faster than the default and makes the files only a few percent larger.
            Image.fromarray(getattr(pair, key)).save(partial, "PNG", compress_level=1)
            os.replace(partial, file)
    return {"name": source.name, **{key: str(file) for key, file in files.items()}}


def _builder(name: str, scale: int, splits: Splits, work: pathlib.Path) -> "tfds.core.DatasetBuilder":
    import tensorflow_datasets as tfds

    class Pairs(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        """LR–HR pairs."""

        VERSION = tfds.core.Version(_VERSION)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=f"x{scale}", description=f"Pairs ×{scale}.")]  # noqa: RUF012

        def _info(self) -> tfds.core.DatasetInfo:
            image = functools.partial(tfds.features.Image, shape=(None, None, 3), encoding_format="png")
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict({"name": tfds.features.Text(), "lr": image(), "hr": image()}),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
            with tqdm.tqdm(total=len(splits[split]), unit="image", desc=f"{name} ×{scale} {split}") as bar:
                encode = functools.partial(_encode, scale=scale, folder=work)
                for key, example in enumerate(in_order(encode, splits[split])):
                    yield key, example
                    bar.update()

    Pairs.name = name
    return Pairs(data_dir=str(work), config=f"x{scale}", file_format="array_record")


def _download(url: str, file: pathlib.Path) -> None:
    partial = file.with_name(f"{file.name}.partial")
    there = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if there else {})
    with urllib.request.urlopen(request, timeout=60) as response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            there = 0
        total = there + int(response.headers["Content-Length"] or 0)
        bar = tqdm.tqdm(initial=there, total=total, unit="B", unit_scale=True, desc=file.name)
        with bar, partial.open("ab" if there else "wb") as out:
            while block := response.read(1 << 20):
                out.write(block)
                bar.update(len(block))
    if partial.stat().st_size < total:
        raise OSError(f"the connection was lost after {partial.stat().st_size} of {total} bytes")
    os.replace(partial, file)


def _download_div2k(scale: int, data_dir: pathlib.Path) -> pathlib.Path:
    folder = data_dir / "downloads" / "div2k"
    names = [f"DIV2K_{part}_{kind}.zip" for part in ("train", "valid") for kind in ("HR", f"LR_bicubic_X{scale}")]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "download.lock"):
            for name in names:
                if not (folder / name).exists():
                    _download(_DIV2K_URL + name, folder / name)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"cannot download DIV2K from {_DIV2K_URL} to {folder} ({error}): try again later, or download "
            f"{', '.join(names)} yourself and pass their folder as source=DIR"
        ) from error
    return folder


def _prepared(name: str, scale: int, data_dir: pathlib.Path) -> pathlib.Path | None:
    # DIV2K may also have been prepared by tensorflow-datasets' own builder.
    for config in (f"x{scale}", f"bicubic_x{scale}"):
        versions = sorted((data_dir / name / config).glob("*.*.*/dataset_info.json"))
        if versions:
            return versions[-1].parent
    return None


def prepare(
    name: str,
    *,
    scale: int,
    data_dir: str | os.PathLike[str] | None = None,
    source: str | os.PathLike[str] | None = None,
    validation: int = 0,
    overwrite: bool = False,
) -> pathlib.Path:
    """Prepares a dataset: reads its images once and stores LR–HR pairs for `open_pairs`.

    A dataset that is already prepared is kept, and a preparation that was interrupted is resumed. The dataset appears
    only when it is complete. Meanwhile, up to twice its size is needed on disk.

    Args:
      name: `"sample"` (the photographs that scikit-image installs), `"div2k"`, a benchmark set (`"set5"`, `"set14"`,
        `"b100"`, `"urban100"`, `"manga109"`), or a new name of letters, digits, `-` and `_` for a folder of HR
        photographs.
      scale: the scale of the pairs: 2, 3 or 4.
      data_dir: the folder to store the dataset in; by default `default_data_dir()`.
      source: the folder with the images. If it is omitted, DIV2K is downloaded.
      validation: the number of images of a folder of photographs to hold out.
      overwrite: whether to replace a dataset that is already prepared.

    Returns:
      The folder of the prepared dataset.

    Raises:
      UserError: the source is not recognized, a file in it cannot be read, or the dataset cannot be written.
    """
    name = dataset_name(name)
    data_dir = pathlib.Path(data_dir or default_data_dir()).expanduser().resolve()
    folder = pathlib.Path(source).expanduser().resolve() if source is not None else None
    if folder is None and not overwrite and (ready := _prepared(name, scale, data_dir)):
        return ready
    if folder is None and name == "div2k":
        folder = _download_div2k(scale, data_dir)
    if folder is not None and folder != data_dir and (ready := _prepared(name, scale, folder)):
        raise UserError(f"{ready} is already prepared: use data_dir={folder}")
    target = data_dir / name / f"x{scale}" / _VERSION
    try:
        splits = find(name, folder, scale, validation)
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent / "prepare.lock"):
            if overwrite or not target.exists():
                _write(name, scale, splits, target)
            elif (target / "source.txt").read_text() != fingerprint(splits):
                raise UserError(
                    f"{target} was prepared from different files or with a different number of validation images: "
                    "pass overwrite=True to replace it, or choose another name"
                )
    except OSError as error:
        raise UserError(f"cannot prepare {target}: {error}") from error
    return target


def _write(name: str, scale: int, splits: Splits, target: pathlib.Path) -> None:
    import tensorflow_datasets as tfds

    made_from = fingerprint(splits)
    work = target.with_name(f"{_VERSION}.partial")
    work.mkdir(exist_ok=True)
    # An interrupted preparation keeps its images, but array_record files cannot be continued.
    shutil.rmtree(work / name, ignore_errors=True)
    tfds.disable_progress_bar()
    # tfds prints to standard output what the progress bar shows.
    with contextlib.redirect_stdout(io.StringIO()):
        builder = _builder(name, scale, splits, work)
        try:
            builder.download_and_prepare()
        except RuntimeError as error:  # array_record reports a full disk this way
            raise UserError(f"cannot write {target}: {' '.join(str(error).split())}") from error
    (builder.data_path / "source.txt").write_text(made_from)
    if target.exists():
        os.replace(target, work / "old")
    os.replace(builder.data_path, target)
    shutil.rmtree(work)


class _Stored(Sequence[Pair]):
    """The pairs of a prepared dataset, decoded on access."""

    def __init__(self, folder: pathlib.Path, split: str, scale: int):
        import tensorflow_datasets as tfds

        try:
            builder = tfds.builder_from_directory(folder)
        except Exception as error:  # each library that meets the damage raises its own
            reason = " ".join(str(error).split())
            raise UserError(f"{folder} is damaged ({reason}): prepare the dataset again with overwrite=True") from error
        if split not in builder.info.splits:
            raise UserError(
                f"{folder} has no split {split!r}, only {', '.join(builder.info.splits)}: prepare it again with "
                "`a2f data prepare --validation N --overwrite`, which holds out N images of a folder of photographs"
            )
        raw = tfds.decode.SkipDecoding()
        try:
            self._data = builder.as_data_source(split=split, decoders={"lr": raw, "hr": raw})
        except NotImplementedError as error:
            raise UserError(
                f"{folder} is not in array_record format: prepare it again with `a2f data prepare`, or convert it "
                "with the convert_format script of tensorflow-datasets"
            ) from error
        self._folder, self._scale = folder, scale

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Pair:  # type: ignore[override]
        index = range(len(self))[index]
        try:
            example = self._data[index]
            lr, hr = (np.asarray(Image.open(io.BytesIO(example[key])).convert("RGB")) for key in ("lr", "hr"))
        except Exception as error:  # each library that meets the damage raises its own
            raise UserError(
                f"image {index} in {self._folder} is damaged ({error}): prepare the dataset again with overwrite=True"
            ) from error
        height, width = self._scale * lr.shape[0], self._scale * lr.shape[1]
        # DIV2K prepared by tensorflow-datasets itself has no names.
        name = example["name"].decode() if "name" in example else f"{index:04d}"
        return Pair(name, lr, hr[:height, :width])


class _Files(Sequence[Pair]):
    """Pairs read directly from image files."""

    def __init__(self, sources: Sequence[Source], scale: int):
        self._sources, self._scale = sources, scale

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, index: int) -> Pair:  # type: ignore[override]
        return self._sources[index].read(self._scale)


def dataset_folder(name: str, *, scale: int, data_dir: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Returns the folder of a prepared dataset. The sample is prepared first if necessary.

    Args:
      name: the name of the dataset, as passed to `prepare`.
      scale: the scale of the pairs.
      data_dir: the folder with the prepared datasets; by default `default_data_dir()`.

    Raises:
      UserError: the dataset is not prepared; the message contains the command that prepares it.
    """
    name = dataset_name(name)
    root = pathlib.Path(data_dir or default_data_dir()).expanduser().resolve()
    if ready := _prepared(name, scale, root):
        return ready
    if name == "sample":
        return prepare(name, scale=scale, data_dir=root)
    source = "" if name == "div2k" else " --source DIR"
    raise UserError(
        f"{name} ×{scale} is not prepared in {root}: run `a2f data prepare {name} --scale {scale}{source} "
        f"--data-dir {root}`"
    )


def open_pairs(
    name: str, *, scale: int, split: str | None = None, data_dir: str | os.PathLike[str] | None = None
) -> Sequence[Pair]:
    """Opens a dataset as a sequence of LR–HR pairs in a fixed order.

    Args:
      name: the name of a prepared dataset or of a benchmark set, as passed to `prepare`. The sample is prepared when it
        is first opened.
      scale: the scale of the pairs: 2, 3 or 4.
      split: `"train"`, `"validation"`, or `"test"`, the only split of the benchmark sets. By default the split for
        evaluation: `"test"` for benchmark sets, `"validation"` for other datasets.
      data_dir: the folder with the prepared datasets, by default `default_data_dir()`; for benchmark sets also a folder
        with the original images, in any layout that `prepare` recognizes.

    Returns:
      The pairs, decoded on access: uint8 RGB images and a name each.

    Raises:
      UserError: the dataset is not found, is damaged, or has no such split.
    """
    name = dataset_name(name)
    root = pathlib.Path(data_dir or default_data_dir()).expanduser().resolve()
    if name not in BENCHMARK_SETS:
        return _Stored(dataset_folder(name, scale=scale, data_dir=root), split or "validation", scale)
    if split not in (None, "test"):
        raise UserError(f"{name} has no split {split!r}: it is a benchmark set, whose only split is 'test'")
    if data_dir is not None and root.is_dir() and not _prepared(name, scale, root):
        return _Files(benchmark(root, name, scale)["test"], scale)
    return _Stored(dataset_folder(name, scale=scale, data_dir=root), "test", scale)
