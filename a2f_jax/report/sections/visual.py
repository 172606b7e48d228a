"""Results as pictures, beside the truth."""

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
from a2f_jax.report.figures import Panel, visual_figure
from a2f_jax.report.page import Cells, PageFigure, Part, Section, Table
from a2f_jax.report.sections.common import NONE, Measured, Numbers, billions, measured_as, thousands


class Example(NamedTuple):
    """An image to compare results on.

    Attributes:
      name: its caption, and the key in `paper.VISUAL` where it is one of the slides'.
      pair: LR and HR.
      crop: left, top, width and height of the part that is enlarged, in HR pixels.
    """

    name: str
    pair: Pair
    crop: tuple[int, ...]

    @property
    def fits(self) -> bool:
        """Whether the crop is inside the image, and the image large enough for PSNR and SSIM."""
        height, width = self.pair.hr.shape[:2]
        x, y, w, h = self.crop
        return 0 <= x < x + w <= width and 0 <= y < y + h <= height and min(height, width) >= 64


# Dataset, the image's place in it, name, crop. The slides' façade is img_096; the one of B100 stands in for it.
_BENCHMARK_EXAMPLES = (
    (("set14", 1, "barbara", (56, 24, 108, 72)),),
    (("urban100", 95, "img_096", (200, 200, 108, 72)), ("b100", 91, "façade (B100)", (100, 78, 108, 72))),
)
_SAMPLE_EXAMPLES = (("motorcycle_left", (340, 280, 108, 72)), ("rocket", (4, 140, 108, 72)))


def default_examples(scale: int, data_dir: str | os.PathLike[str] | None) -> list[Example]:
    """Finds "barbara" and a façade in benchmark sets; a photograph of scikit-image stands in for either."""
    photographs = {source.name: source._replace(columns=(0.0, 1.0)) for source in sample()["train"]}
    examples = []
    for choices, (photograph, photograph_crop) in zip(_BENCHMARK_EXAMPLES, _SAMPLE_EXAMPLES, strict=True):
        example = Example(photograph, photographs[photograph].read(scale), photograph_crop)
        for dataset, index, name, crop in choices if data_dir else ():
            try:
                found = Example(name, open_pairs(dataset, scale=scale, data_dir=data_dir)[index], crop)
            except (UserError, IndexError):
                continue  # the set is not there at this scale, or not whole
            if found.fits:
                example = found
                break
        examples.append(example)
    return examples


def example_from_file(source: Source, crop: tuple[int, ...], scale: int) -> Example:
    """Reads any image as an example; `UserError` if it is too small or the crop is not inside it."""
    example = Example(source.name, source.read(scale), crop)
    if not example.fits:
        height, width = example.pair.hr.shape[:2]
        x, y, w, h = crop
        raise UserError(
            f"{source.hr}: {x},{y},{w},{h} is not inside the image of {width}×{height}, or that is smaller than 64×64"
        )
    return example


def visual_comparison(
    measured: Sequence[Measured], examples: Mapping[int, Sequence[Example]]
) -> tuple[Section, Numbers]:
    """Truth, bicubic interpolation and each model's result, enlarged alike.

    Args:
      measured: the models.
      examples: images for each scale of the models.
    """
    numbers: Numbers = []
    parts: list[Part] = [
        "The marked part of each image, enlarged alike. Below each result: parameters and multi-adds (as the authors "
        "count, for an output of 1280×720), and PSNR and SSIM of the whole image."
    ]
    for scale, of_scale in examples.items():
        models = [m for m in measured if m.model.scale == scale]
        for example in of_scale:
            lr, hr = example.pair.lr, example.pair.hr
            results = [("bicubic", NONE, "measured", Bicubic(scale).upscale(lr))]
            for m in models:
                size = f"{thousands(m.row.parameters)} / {billions(m.row.multiply_adds)}"
                # Of several weights of one variant, the first has its name.
                name = m.label if any(m.row.method == other for other, *_ in results) else m.row.method
                results.append((name, size, measured_as(m), m.model.upscale(lr)))
            panels = [Panel("truth", "parameters / multi-adds\nPSNR / SSIM", hr)]
            for name, size, source, sr in results:
                psnr, ssim = psnr_y(sr, hr, scale), ssim_y(sr, hr, scale)
                panels.append(Panel(name, f"{size}\n{psnr:.3f} dB / {ssim:.4f}", sr))
                numbers.append(
                    {"image": example.name, "scale": scale, "crop": example.crop, "source": source, "model": name,
                     "psnr": psnr, "ssim": ssim}
                )  # fmt: skip
            picture = visual_figure(f"{example.name}, ×{scale}", hr, example.crop, panels)
            caption = f"{example.name} ×{scale}: {', '.join(panel.name for panel in panels)}."
            parts.append(PageFigure(f"visual-x{scale}-{_file_name(example.name)}", caption, picture))
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
    """The letters and digits of a text, without accents: `façade (B100)` → `facade-b100`."""
    plain = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    return "-".join(re.findall("[a-z0-9]+", plain))
