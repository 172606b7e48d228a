"""Datasets of LR–HR pairs, prepared and read by tensorflow-datasets, without TensorFlow.

A dataset is prepared once per scale into `<data_dir>/<name>/x<scale>/1.0.0`, array_record files of losslessly
compressed images. DIV2K as tensorflow-datasets' own builder prepares it (`div2k/bicubic_x4`) is read as well.
"""

import concurrent.futures
import contextlib
import functools
import io
import os
import pathlib
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tqdm
from PIL import Image

from a2f_jax.data.sources import BENCHMARKS, Pair, Source, Splits, benchmark, find, fingerprint
from a2f_jax.errors import UserError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

_VERSION = "1.0.0"
_DIV2K_URL = "https://data.vision.ee.ethz.ch/cvl/DIV2K/"


def default_data_dir() -> pathlib.Path:
    """Returns where prepared datasets are kept: `$A2F_DATA_DIR`, or `~/.cache/a2f_jax/data`."""
    return pathlib.Path(os.environ.get("A2F_DATA_DIR") or "~/.cache/a2f_jax/data").expanduser()


def _png(pixels: np.ndarray) -> io.BytesIO:
    file = io.BytesIO()
    # Level 1 is several times faster than the default, and the files are a few percent larger.
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    file.seek(0)
    return file


def _encode(source: Source, scale: int) -> dict[str, Any]:
    pair = source.read(scale)
    return {"name": pair.name, "lr": _png(pair.lr), "hr": _png(pair.hr)}


def _in_order(sources: Sequence[Source], scale: int) -> Iterator[dict[str, Any]]:
    """Encodes on all cores, yielding in order, never more than a few images ahead."""
    workers = os.cpu_count() or 1
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        waiting = deque(pool.submit(_encode, s, scale) for s in sources[: 2 * workers])
        for i in range(len(sources)):
            example = waiting.popleft().result()
            if i + 2 * workers < len(sources):
                waiting.append(pool.submit(_encode, sources[i + 2 * workers], scale))
            yield example


def _builder(name: str, scale: int, data_dir: pathlib.Path, splits: Splits) -> "tfds.core.DatasetBuilder":
    import tensorflow_datasets as tfds

    class Pairs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """LR–HR pairs; one class serves all datasets, the name is the instance's."""

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
                for key, example in enumerate(_in_order(splits[split], scale)):
                    yield key, example
                    bar.update()

    Pairs.name = name
    return Pairs(data_dir=str(data_dir), config=f"x{scale}", file_format="array_record")


def _download_div2k(scale: int, data_dir: pathlib.Path) -> pathlib.Path:
    """Downloads the official archives that are not there yet, with tfds' download manager."""
    import tensorflow_datasets as tfds

    folder = data_dir / "downloads" / "div2k"
    names = [f"DIV2K_{part}_{kind}.zip" for part in ("train", "valid") for kind in ("HR", f"LR_bicubic_X{scale}")]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            manager = tfds.download.DownloadManager(download_dir=data_dir / "downloads", dataset_name="div2k")
            for name, file in manager.download({name: _DIV2K_URL + name for name in missing}).items():
                os.replace(file, folder / name)
        except Exception as error:  # whatever the network and its libraries raise
            raise UserError(
                f"cannot download DIV2K ({error}): get {', '.join(missing)} from {_DIV2K_URL} yourself, "
                "and name their folder with --source DIR"
            ) from error
    return folder


def _prepared(name: str, scale: int, data_dir: pathlib.Path) -> pathlib.Path | None:
    """The folder of a dataset that is prepared, by us or (DIV2K) by tensorflow-datasets itself."""
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
    """Prepares a dataset: reads its images once and stores pairs where `open_pairs` finds them.

    May be repeated: what is there is kept. A preparation that is stopped leaves nothing behind that could be taken
    for a dataset.

    Args:
      name: `"sample"` (photographs that scikit-image installs), `"div2k"`, `"set5"`, `"set14"`, `"b100"`,
        `"urban100"`, `"manga109"`, or any other name for a folder of HR photographs.
      scale: 2, 3 or 4.
      data_dir: where to store it; by default `default_data_dir()`.
      source: the folder with the images. Without it DIV2K is downloaded.
      validation: how many images of a folder of photographs to hold out, chosen by their names.
      overwrite: prepares anew what was prepared from other files.

    Returns:
      The dataset's folder.

    Raises:
      UserError: the source is not recognised, a file in it cannot be read, or the folder cannot be written.
    """
    data_dir = pathlib.Path(data_dir or default_data_dir()).expanduser().resolve()
    folder = pathlib.Path(source).expanduser().resolve() if source is not None else None
    if folder is None and name != "sample" and (ready := _prepared(name, scale, data_dir)):
        return ready
    if folder is None and name == "div2k":
        folder = _download_div2k(scale, data_dir)
    splits = find(name, folder, scale, validation)
    target = data_dir / name / f"x{scale}" / _VERSION
    mark, made_from = target / "source.txt", fingerprint(splits)
    if target.exists():
        if mark.exists() and mark.read_text() == made_from:
            return target
        if not overwrite:
            raise UserError(
                f"{target} was prepared from other files than {folder or name} now holds: add --overwrite, "
                "or choose another name"
            )
        shutil.rmtree(target)
    for abandoned in target.parent.glob("incomplete.*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    try:
        # tfds announces on standard output what our progress bar says.
        with contextlib.redirect_stdout(io.StringIO()):
            _quiet_tfds()
            _builder(name, scale, data_dir, splits).download_and_prepare()
        mark.write_text(made_from)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
    return target


def _quiet_tfds() -> None:
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()


class _Stored(Sequence[Pair]):
    """Pairs of a prepared dataset, decoded when they are asked for."""

    def __init__(self, folder: pathlib.Path, split: str):
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(folder)
        if split not in builder.info.splits:
            raise UserError(f"{folder} has no split {split!r}, only {', '.join(builder.info.splits)}")
        raw = tfds.decode.SkipDecoding()
        try:
            self._data = builder.as_data_source(split=split, decoders={"lr": raw, "hr": raw})
        except NotImplementedError as error:
            raise UserError(
                f"{folder} is not in array_record format: prepare it again with `a2f data prepare`, or convert it "
                "with tensorflow-datasets' convert_format script"
            ) from error

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Pair:  # type: ignore[override]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        example = self._data[index % len(self)]
        name = example["name"].decode() if "name" in example else f"{index % len(self):04d}"
        lr, hr = (np.asarray(Image.open(io.BytesIO(example[key])).convert("RGB")) for key in ("lr", "hr"))
        return Pair(
            name,
            lr,
            hr[: lr.shape[0] * (hr.shape[0] // lr.shape[0]), : lr.shape[1] * (hr.shape[1] // lr.shape[1])],
        )


class _Files(Sequence[Pair]):
    """Pairs read from the files themselves."""

    def __init__(self, sources: Sequence[Source], scale: int):
        self._sources, self._scale = sources, scale

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, index: int) -> Pair:  # type: ignore[override]
        return self._sources[index].read(self._scale)


def dataset_folder(name: str, *, scale: int, data_dir: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Returns the folder of a prepared dataset.

    Raises:
      UserError: it is not prepared; the message holds the command that prepares it.
    """
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
    name: str, *, scale: int, split: str = "test", data_dir: str | os.PathLike[str] | None = None
) -> Sequence[Pair]:
    """Opens a dataset for reading image by image, in a fixed order.

    Args:
      name: see `prepare`. The sample is prepared when it is first asked for.
      scale: the scale of the pairs.
      split: `"train"`, `"validation"`, or `"test"`, the only one of the benchmark sets.
      data_dir: where datasets are prepared; for benchmark sets also a folder with the original files, in either
        layout that `prepare` knows.

    Returns:
      The pairs, decoded when they are asked for.

    Raises:
      UserError: the dataset is not there, not prepared, or has no such split.
    """
    root = pathlib.Path(data_dir or default_data_dir()).expanduser().resolve()
    if name in BENCHMARKS and root.is_dir() and not _prepared(name, scale, root) and data_dir is not None:
        return _Files(benchmark(root, name, scale)[split], scale)
    return _Stored(dataset_folder(name, scale=scale, data_dir=root), split)
