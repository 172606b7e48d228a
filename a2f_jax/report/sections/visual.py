"""The section that shows results next to the ground truth."""

import itertools
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from a2f_jax.data import open_pairs
from a2f_jax.data.sources import Pair, Source, sample
from a2f_jax.errors import UserError
from a2f_jax.evaluation import paper
from a2f_jax.evaluation.benchmark import Bicubic
from a2f_jax.evaluation.metrics import psnr_y, ssim_y
from a2f_jax.evaluation.panels import NARROWEST
from a2f_jax.report.figures import Panel, visual_figure
from a2f_jax.report.page import Cells, PageFigure, Part, Section, Table
from a2f_jax.report.sections.common import MISSING, Measured, Numbers, billions, measured_as, thousands


class Example(NamedTuple):
    """An image for the visual comparison.

    Attributes:
      name: the caption, and the key in `paper.VISUAL` if the slides show this image.
      pair: the LR and HR images.
      crop: left, top, width and height of the enlarged region, in HR pixels.
    """

    name: str
    pair: Pair
    crop: tuple[int, ...]

    @property
    def fits(self) -> bool:
        """Whether the crop lies inside the image, and the image is large enough for PSNR and SSIM."""
        height, width = self.pair.hr.shape[:2]
        x, y, w, h = self.crop
        return 0 <= x < x + w <= width and 0 <= y < y + h <= height and min(height, width) >= 64


# Dataset, index of the image, name, crop. The slides show img_096; a façade from B100 replaces it if it is missing.
_BENCHMARK_EXAMPLES = (
    (("set14", 1, "barbara", (56, 24, 108, 72)),),
    (("urban100", 95, "img_096", (200, 200, 108, 72)), ("b100", 91, "façade (B100)", (100, 78, 108, 72))),
)
_SAMPLE_EXAMPLES = (("motorcycle_left", (340, 280, 108, 72)), ("rocket", (4, 140, 108, 72)))


def default_examples(scale: int, data_dir: str | os.PathLike[str] | None) -> list[Example]:
    """Returns "barbara" and a façade from the benchmark sets, or photographs from scikit-image if they are missing.

    Args:
      scale: the scale of the image pairs.
      data_dir: the folder that contains the benchmark sets.
    """
    photographs = {source.name: source._replace(columns=(0.0, 1.0)) for source in sample()["train"]}
    examples = []
    for choices, (photograph, photograph_crop) in zip(_BENCHMARK_EXAMPLES, _SAMPLE_EXAMPLES, strict=True):
        example = Example(photograph, photographs[photograph].read(scale), photograph_crop)
        for dataset, index, name, crop in choices if data_dir else ():
            try:
                found = Example(name, open_pairs(dataset, scale=scale, data_dir=data_dir)[index], crop)
            except (UserError, IndexError):
                continue  # the set is missing at this scale, or incomplete
            if found.fits:
                example = found
                break
        examples.append(example)
    return examples


def example_from_file(source: Source, crop: tuple[int, ...], scale: int) -> Example:
    """Reads an image file as an example.

    Args:
      source: the image.
      crop: left, top, width and height of the region to enlarge, in HR pixels.
      scale: the scale of the image pair.

    Raises:
      UserError: the image cannot be read or is too small, or the crop does not lie inside it, or is narrow.
    """
    if max(crop[2:]) > NARROWEST * min(crop[2:]):
        raise UserError(
            f"{source.hr}: the crop of {crop[2]}×{crop[3]} is too narrow: choose one whose longer side is at most "
            f"{NARROWEST} times the shorter one"
        )
    example = Example(source.name, source.read(scale), crop)
    if not example.fits:
        height, width = example.pair.hr.shape[:2]
        x, y, w, h = crop
        raise UserError(
            f"{source.hr}: the crop {x},{y},{w},{h} does not lie inside the image of {width}×{height}, or the image is "
            "smaller than 64×64"
        )
    return example


def visual_comparison(
    measured: Sequence[Measured], examples: Mapping[int, Sequence[Example]]
) -> tuple[Section, Numbers]:
    """Draws a crop of the ground truth, of bicubic interpolation and of the result of each model.

    Args:
      measured: the models.
      examples: the images for each scale of the models.
    """
    numbers: Numbers = []
    parts: list[Part] = [
        "The marked region of each image, enlarged. The captions show parameters and multi-adds (counted as the "
        "authors count them, for an output of 1280×720), and the PSNR and SSIM of the whole image."
    ]
    for scale, of_scale in examples.items():
        models = [m for m in measured if m.model.scale == scale]
        for example in of_scale:
            lr, hr = example.pair.lr, example.pair.hr
            results = [("bicubic", MISSING, "measured", Bicubic(scale).upscale(lr))]
            for m in models:
                size = f"{thousands(m.row.parameters)} / {billions(m.row.multiply_adds)}"
                # Among several weights of one variant, the first is named after the variant.
                name = m.label if any(m.row.method == other for other, *_ in results) else m.row.method
                results.append((name, size, measured_as(m), m.model.upscale(lr)))
            panels = [Panel("ground truth", "parameters / multi-adds\nPSNR / SSIM", hr)]
            for name, size, source, sr in results:
                psnr, ssim = psnr_y(sr, hr, scale), ssim_y(sr, hr, scale)
                panels.append(Panel(name, f"{size}\n{psnr:.3f} dB / {ssim:.4f}", sr))
                numbers.append(
                    {"image": example.name, "scale": scale, "crop": example.crop, "source": source, "model": name,
                     "psnr": psnr, "ssim": ssim}
                )  # fmt: skip
            picture = visual_figure(f"{example.name}, ×{scale}", hr, example.crop, panels)
            caption = f"{example.name} ×{scale}: {', '.join(panel.name for panel in panels)}."
            # Images of one name, or crops of one image, have files of their own.
            plain = f"visual-x{scale}-{_file_name(example.name) or 'image'}"
            taken = [part.name for part in parts if isinstance(part, PageFigure)]
            numbered = (f"{plain}-{i}" for i in itertools.count(2))
            name = next(n for n in itertools.chain([plain], numbered) if n not in taken)
            parts.append(PageFigure(name, caption, picture))
            if scale == 4 and example.name in paper.VISUAL:
                rows = [
                    Cells([name, "slides", f"{psnr:.3f}", f"{ssim:.4f}"])
                    for name, (psnr, ssim) in paper.VISUAL[example.name].items()
                ]
                rows += [
                    Cells([n["model"], n["source"], f"{n['psnr']:.3f}", f"{n['ssim']:.4f}"], measured=True)
                    for n in numbers[-len(results) :]
                ]
                parts.append(Table(["Model", "Source", "PSNR (dB)", "SSIM"], rows, text_columns=2))
    return Section("Visual comparison", parts), numbers


def _file_name(text: str) -> str:
    # For example, `façade (B100)` → `facade-b100`.
    plain = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    return "-".join(re.findall("[a-z0-9]+", plain))
