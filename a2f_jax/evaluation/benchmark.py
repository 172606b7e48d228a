"""The benchmark protocol: upscales every image of a dataset, measures each result and averages the scores."""

import dataclasses
import io
import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from a2f_jax.catalog import BENCHMARK_SETS
from a2f_jax.data import matlab_bicubic, open_pairs
from a2f_jax.data.sources import dataset_name, is_folder_path
from a2f_jax.errors import UserError
from a2f_jax.evaluation import lpips as lpips_metric
from a2f_jax.evaluation.measurable import check_measurable
from a2f_jax.evaluation.metrics import MOST_PSNR, psnr_y, ssim_y
from a2f_jax.evaluation.tables import flat_rows, write_results
from a2f_jax.files import as_path, check_writable
from a2f_jax.model import refuse_name
from a2f_jax.progress import progress_bar


class Evaluable(Protocol):
    """Anything that `evaluate` accepts, such as `a2f_jax.Model` or `Bicubic`.

    Tables show the attribute `variant` as its name, or without it the name of the class.
    """

    @property
    def scale(self) -> int:
        """The upscaling factor."""

    def upscale(self, image: np.ndarray) -> np.ndarray:
        """Upscales one RGB image: uint8 `[H, W, 3]` → uint8 `[scale · H, scale · W, 3]`."""


@dataclasses.dataclass(frozen=True)
class Bicubic:
    """The usual baseline: bicubic interpolation as MATLAB's `imresize` computes it.

    Attributes:
      scale: the upscaling factor.
      variant: the name that tables show, always `"bicubic"`.
    """

    scale: int
    variant: str = dataclasses.field(default="bicubic", init=False)

    def upscale(self, image: np.ndarray) -> np.ndarray:
        """Interpolates one RGB image: uint8 `[H, W, 3]` → uint8 `[scale · H, scale · W, 3]`."""
        return matlab_bicubic(image, self.scale)


@dataclasses.dataclass(frozen=True)
class _UpscalingFunction:
    scale: int
    variant: str
    upscale: Callable[[np.ndarray], np.ndarray]


def _evaluable(model: Any, scale: int | None) -> Evaluable:
    if hasattr(model, "upscale") and getattr(model, "scale", None) is not None:
        if scale not in (None, model.scale):
            raise ValueError(f"the model upscales by {model.scale}, not by {scale}: leave out scale")
        return model
    refuse_name(model)
    upscale = getattr(model, "upscale", model)
    if not callable(upscale):
        raise TypeError(f"expected a model or a function that upscales an image, got {type(model).__name__}")
    if scale is None:
        raise TypeError(f"{type(model).__name__} does not tell by how much it upscales: pass scale")
    if not isinstance(scale, numbers.Integral) or scale < 1:
        raise ValueError(f"scale is {scale!r}, but must be a positive integer")
    name = getattr(model, "variant", None) or getattr(model, "__name__", None) or type(model).__name__
    return _UpscalingFunction(int(scale), name, upscale)


def _name(model: Evaluable) -> str:
    return getattr(model, "variant", None) or type(model).__name__


def _label(dataset: str | os.PathLike[str]) -> str:
    text = os.fspath(dataset)
    if is_folder_path(dataset):
        return text if is_folder_path(text) else os.path.join(".", text)  # not the name of a dataset
    name = dataset_name(text)
    return name if name in BENCHMARK_SETS else text


def check_jpeg_quality(quality: int | None) -> None:
    """Checks the JPEG quality of LR images.

    Args:
      quality: the quality, or None if they are not compressed.

    Raises:
      UserError: the quality is not an integer in 1..100.
    """
    whole = isinstance(quality, int | np.integer) and not isinstance(quality, bool)
    if quality is not None and not (whole and 1 <= quality <= 100):
        raise UserError(f"{quality!r} is not a JPEG quality: use an integer from 1 to 100", parameter="jpeg")


def jpeg_compressed(image: np.ndarray, quality: int | None) -> np.ndarray:
    """Saves an image as JPEG with chroma of half the resolution (4:2:0), and reads it again.

    Args:
      image: uint8 RGB `[H, W, 3]`.
      quality: the quality, 1..100; None returns the image as it is.

    Returns:
      uint8 RGB `[H, W, 3]`.
    """
    if quality is None:
        return image
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=int(quality), subsampling="4:2:0")
    return np.asarray(Image.open(file))


def _measure(sr: np.ndarray, hr: np.ndarray, scale: int, lpips: bool) -> dict[str, float]:
    sr = np.asarray(sr)
    scores = {"psnr": psnr_y(sr, hr, scale), "ssim": ssim_y(sr, hr, scale)}
    if lpips:
        scores["lpips"] = lpips_metric.lpips(sr, hr)
    return scores


def mean_scores(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean of each metric over images; the PSNR of each counts as at most `MOST_PSNR`."""
    means = {metric: float(np.mean([score[metric] for score in scores])) for metric in scores[0]}
    return {**means, "psnr": float(np.mean([min(score["psnr"], MOST_PSNR) for score in scores]))}


def evaluate(
    model: Evaluable | Callable[[np.ndarray], np.ndarray],
    datasets: Sequence[str | os.PathLike[str]],
    *,
    scale: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    per_image: bool = False,
    lpips: bool = False,
    jpeg: int | None = None,
    output: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Measures a model on whole datasets.

    Args:
      model: a `Model`, or any other object with the attribute `scale`, the upscaling factor, and the method `upscale`,
        from a uint8 RGB array `[H, W, 3]` to `[scale · H, scale · W, 3]`; or such a function.
      datasets: dataset names that `open_pairs` accepts, or paths of folders with HR images, such as `"photos/"`.
        Benchmark sets, such as `["set5", "set14", "b100"]`, and folders are measured whole; of a training dataset, the
        validation split is measured.
      scale: the upscaling factor of a function, or of an object without the attribute `scale`.
      data_dir: the folder that holds the named datasets (default: the one that `open_pairs` uses).
      weights: the origin of the model's weights. It is only copied into the result.
      per_image: whether to return the scores of every image, or their means.
      lpips: whether to measure LPIPS as well, which requires the extra `[lpips]`.
      jpeg: a quality, 1..100, at which the LR images are saved as JPEG (4:2:0) and read again before they are upscaled.
      output: a folder for `results.json` and `results.md`, which are written again after each dataset; existing ones
        are replaced.
      progress: whether to show a progress bar on standard error.

    Returns:
      A dictionary for each dataset, `{"dataset", "model", "scale", "weights", "jpeg"?, "images", "psnr", "ssim",
      "lpips"?}`, of which `pandas.DataFrame` makes a table; `"images"` is the number of images, and the scores are
      their means, in which an image without an error counts as 100 dB. With `per_image`, a dictionary for each image,
      with its name as `"image"`. PSNR, in dB, and SSIM are computed on luma after cropping `scale` pixels from each
      side; LPIPS on the whole RGB image.

    Raises:
      TypeError: the model cannot upscale, or is a function without `scale`, or `datasets` is a single name or path.
      UserError: a dataset is unknown or empty, an image pair does not match the model's scale or is too small to
        measure, the model's output is not finite or has the wrong size or dtype, the extra `[lpips]` is not installed,
        or `output` cannot be written.
      ValueError: `scale` is not that of the model, or not a positive integer.
    """
    results = evaluate_models(
        [(_evaluable(model, scale), None if weights is None else os.fspath(weights))],
        datasets,
        data_dir=data_dir,
        lpips=lpips,
        jpeg=jpeg,
        output=output,
        progress=progress,
    )
    return flat_rows(results, per_image=per_image)


def evaluate_models(
    models: Sequence[tuple[Evaluable, str | None]],
    datasets: Sequence[str | os.PathLike[str]],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    lpips: bool = False,
    jpeg: int | None = None,
    output: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Measures several models, whose scales may differ, on the same datasets.

    Args:
      models: each model with the origin of its weights, which is copied into its result.
      datasets: names and folders, as in `evaluate`. Every model must find them at its scale before anything is
        measured.
      data_dir: the folder that holds the named datasets, as in `evaluate`.
      lpips: whether to measure LPIPS as well, which requires the extra `[lpips]`.
      jpeg: the JPEG quality of the LR images, as in `evaluate`.
      output: a folder for `results.json` and `results.md`, with all results so far after each dataset.
      progress: whether to show a progress bar on standard error.

    Returns:
      The result of each model, in the order of `models`: `{"model", "scale", "weights", "jpeg"?, "datasets":
      {dataset: {"psnr", "ssim", "lpips"?, "n", "images": {name: {"psnr", "ssim", "lpips"?}}}}}`. The scores of a
      dataset are the means over its `n` images.

    Raises:
      UserError: as in `evaluate`.
    """
    if isinstance(datasets, str | os.PathLike):
        name = os.fspath(datasets)
        raise TypeError(f"datasets is the single name {name!r}: pass a list of names, such as [{name!r}]")
    # Benchmark sets are found under any spelling; each is measured once.
    wanted = {_label(dataset): dataset for dataset in datasets}
    if output is not None:
        output = as_path(output)
        check_writable(output)
    check_jpeg_quality(jpeg)
    if lpips:
        lpips_metric.check_installed()
    # All datasets are opened and read before the first image is measured, so that what is wrong is found at once.
    opened = [
        {name: open_pairs(place, scale=model.scale, data_dir=data_dir) for name, place in wanted.items()}
        for model, _ in models
    ]
    for scale, sets in {model.scale: sets for (model, _), sets in zip(models, opened, strict=True)}.items():
        for name, pairs in sets.items():
            check_measurable(name, pairs, scale, progress=progress)
    results: list[dict[str, Any]] = []
    total = sum(len(pairs) for sets in opened for pairs in sets.values())
    with progress_bar(total=total, unit="image", description="evaluate", visible=progress) as bar:
        for (model, weights), sets in zip(models, opened, strict=True):
            setting = {} if jpeg is None else {"jpeg": int(jpeg)}
            facts = {"model": _name(model), "scale": int(model.scale), "weights": weights, **setting}
            results.append({**facts, "datasets": {}})
            for name, pairs in sets.items():
                bar.set_description_str(f"{_name(model)} ×{model.scale} on {name}", refresh=False)
                images = {}
                for pair in pairs:
                    try:
                        sr = model.upscale(jpeg_compressed(pair.lr, jpeg))
                        images[pair.name] = _measure(sr, pair.hr, model.scale, lpips)
                    except (UserError, ValueError) as error:
                        raise UserError(f"{name}, image {pair.name}: {error}") from error
                    bar.update()
                results[-1]["datasets"][name] = {**mean_scores([*images.values()]), "n": len(images), "images": images}
                if output is not None:
                    write_results(results, output)
    return results
