"""The benchmark protocol: upscale every image of a dataset, measure it, average."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import tqdm

from a2f_jax.data import matlab_bicubic, open_pairs
from a2f_jax.errors import UserError
from a2f_jax.evaluation.lpips import lpips as lpips_distance
from a2f_jax.evaluation.metrics import psnr_y, ssim_y
from a2f_jax.evaluation.tables import write_results


class Evaluable(Protocol):
    """What can be evaluated: `a2f_jax.Model`, `Bicubic`."""

    @property
    def variant(self) -> str:
        """The name in the tables."""

    @property
    def scale(self) -> int:
        """The upscaling factor."""

    def upscale(self, image: np.ndarray) -> np.ndarray:
        """Upscales one image: uint8 `[H, W, 3]` → uint8 `[scale · H, scale · W, 3]`."""


@dataclasses.dataclass(frozen=True)
class Bicubic:
    """The baseline: MATLAB's bicubic interpolation.

    Attributes:
      scale: the upscaling factor.
    """

    scale: int
    variant: str = dataclasses.field(default="bicubic", init=False)

    def upscale(self, image: np.ndarray) -> np.ndarray:
        """Interpolates one image: uint8 `[H, W, 3]` → uint8 `[scale · H, scale · W, 3]`."""
        return matlab_bicubic(image, self.scale)


def _measure(sr: np.ndarray, hr: np.ndarray, scale: int, lpips: bool) -> dict[str, float]:
    scores = {"psnr": psnr_y(sr, hr, scale), "ssim": ssim_y(sr, hr, scale)}
    if lpips:
        scores["lpips"] = lpips_distance(sr, hr)
    return scores


def evaluate(
    model: Evaluable,
    datasets: Sequence[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    weights: str | None = None,
    lpips: bool = False,
    output: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Measures a model on whole datasets, image by image, with a progress bar.

    Args:
      model: a `Model`, `Bicubic`, or anything else with `variant`, `scale` and `upscale`.
      datasets: names that `open_pairs` knows: benchmark sets such as `["set5", "set14", "b100"]`, or others,
        whose validation images are taken.
      data_dir: where `open_pairs` finds them; by default its own.
      weights: where the model's weights come from, for the record.
      lpips: measures LPIPS too; needs the extra `[lpips]`.
      output: folder for `results.json` and `results.md`; written anew after each dataset.

    Returns:
      `{"model", "scale", "weights", "datasets": {dataset: {"psnr", "ssim", "lpips"?, "n", "images": {name:
      {"psnr", "ssim", "lpips"?}}}}}`: PSNR in dB and SSIM on luma, shaving `scale` pixels; a dataset's
      figures are the means over its `n` images.

    Raises:
      UserError: a dataset is unknown or empty, a pair is not of the model's scale or too small to be
        measured, the extra is missing, or `output` cannot be written.
    """
    opened = {name: open_pairs(name, scale=model.scale, data_dir=data_dir) for name in datasets}
    result: dict[str, Any] = {
        "model": model.variant,
        "scale": model.scale,
        "weights": weights,
        "datasets": {},
    }
    with tqdm.tqdm(total=sum(map(len, opened.values())), unit="image") as bar:
        for name, pairs in opened.items():
            bar.set_description(f"{model.variant} ×{model.scale} on {name}")
            images = {}
            for pair in pairs:
                sr = model.upscale(pair.lr)
                try:
                    images[pair.name] = _measure(sr, pair.hr, model.scale, lpips)
                except ValueError as error:
                    raise UserError(f"{name}, image {pair.name}: {error}") from error
                bar.update()
            scores = list(images.values())
            if not scores:
                raise UserError(f"{name} has no images")
            means = {metric: float(np.mean([score[metric] for score in scores])) for metric in scores[0]}
            result["datasets"][name] = {**means, "n": len(scores), "images": images}
            if output is not None:
                write_results(result, output)
    return result
