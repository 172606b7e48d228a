"""The sections about quality and speed, compared with other networks."""

from collections.abc import Mapping, Sequence

import jax

from a2f_jax.catalog import BENCHMARK_SETS
from a2f_jax.evaluation import paper
from a2f_jax.evaluation.paper import SETS, Row
from a2f_jax.models.a2f import SCALES, VARIANTS
from a2f_jax.models.convolution import prefers_winograd
from a2f_jax.models.counts import count
from a2f_jax.progress import progress_bar
from a2f_jax.report import measure
from a2f_jax.report.figures import Point, tradeoff_figure
from a2f_jax.report.page import Cells, PageFigure, Part, Section, Table
from a2f_jax.report.sections.common import (
    MISSING,
    Measured,
    Numbers,
    billions,
    measured_as,
    networks_named,
    score_cells,
    thousands,
)

_PLOTTED = "set14"
"""The benchmark set of the scatter plots."""


def _with_measured(published: Sequence[Row], measured: Sequence[Measured]) -> list[tuple[Row, str | None]]:
    # The published rows by size, each followed by the measured rows of the same network with their labels.
    places = {row.method: row.parameters for row in published}
    rows: list[tuple[Row, str | None]] = [(row, None) for row in published]
    rows += [(m.row, m.label) for m in measured if m.datasets]
    return sorted(rows, key=lambda r: (places.get(r[0].method, r[0].parameters), r[1] is not None))


def comparison(measured: Sequence[Measured]) -> tuple[Section, Numbers]:
    """Tabulates PSNR and SSIM of all networks, and plots PSNR on Set14 against size."""
    numbers: Numbers = []
    parts: list[Part] = [
        "PSNR (in dB) and SSIM on luma, after cropping a border of `scale` pixels. Multi-adds are for an output of "
        "1280×720; those of measured rows are counted as the authors count them, except that transposed convolutions "
        "are counted at the size of their input. Two published numbers appear to be misprints: the SSIM of "
        "A2F-SD ×4 on B100, 0.7373, and the multi-adds of SRDenseNet, 389.9K, given here as 389.9G."
    ]
    heading = ["Model", "Source", "Parameters", "Multi-adds", *(BENCHMARK_SETS[name].title for name in SETS)]
    for scale in SCALES:
        published = paper.COMPARISON.get(scale, ())
        rows = _with_measured(published, [m for m in measured if m.model.scale == scale])
        if not rows:
            continue
        numbers += [{"scale": scale, **row._asdict(), "weights": label} for row, label in rows]
        cells = [
            Cells(
                [
                    row.method,
                    f"measured: `{label}`" if label else "slides",
                    thousands(row.parameters),
                    billions(row.multiply_adds),
                    *score_cells(row.scores, "psnr", "ssim"),
                ],
                measured=label is not None,
            )
            for row, label in rows
        ]
        parts.append(f"×{scale}:" if published else f"×{scale}, for which the slides contain no results:")
        parts.append(Table(heading, cells, text_columns=2))
        if published:
            points = [
                Point(row.method, row.parameters, row.multiply_adds, row.scores[_PLOTTED]["psnr"], label is not None)
                for row, label in rows
                if _PLOTTED in row.scores
            ]
            title = f"{BENCHMARK_SETS[_PLOTTED].title} ×{scale}"
            picture = tradeoff_figure(points, title)
            caption = f"PSNR on {title} versus parameters and multi-adds."
            parts.append(PageFigure(f"tradeoff-x{scale}", caption, picture))
    return Section("Comparison with other networks", parts), numbers


def lpips(measured: Sequence[Measured]) -> tuple[Section, Numbers]:
    """Tabulates LPIPS and the multi-adds for an input of 32×32, ×4."""
    numbers: Numbers = []
    output = (4 * 32, 4 * 32)
    rows = [
        Cells(
            [
                row.method,
                "slides",
                thousands(row.parameters),
                billions(row.multiply_adds, 3),
                *score_cells(row.scores, "lpips"),
            ]
        )
        for row in paper.LPIPS
    ]
    of_scale = [m for m in measured if m.model.scale == 4]
    printed = [row.method for row in paper.LPIPS]
    titles = dict.fromkeys([*(name.upper() for name in VARIANTS), *printed, *(m.row.method for m in of_scale)])
    networks = {**{m.row.method: m.model.network for m in of_scale}, **networks_named(titles, 4)}
    for title, network in networks.items():
        size = count(network, output)
        sizes = [thousands(size.parameters / 1e3), billions(size.multiply_adds / 1e9, 3)]
        numbers.append({"model": title, "multiply_adds_32x32": size.multiply_adds})
        sources = {
            measured_as(m): m.datasets
            for m in of_scale
            if m.row.method == title and any("lpips" in d for d in m.datasets.values())
        }
        for source, scores in (sources or {"counted": {}}).items():
            rows.append(Cells([title, source, *sizes, *score_cells(scores, "lpips")], measured=True))
    places = {row.method: index for index, row in enumerate(paper.LPIPS)}
    rows.sort(key=lambda row: (places.get(row.cells[0], len(places)), row.cells[1] != "slides"))
    heading = ["Model", "Source", "Parameters", "GFLOPs, 32×32", *(BENCHMARK_SETS[name].title for name in SETS)]
    parts: list[Part] = [
        "LPIPS (AlexNet, version 0.1) on the whole RGB image; lower is better. The GFLOPs of the slides are multi-adds "
        "in units of 1e9, for an input of 32×32. Highlighted rows count those of convolutions and matrix products.",
        Table(heading, rows, text_columns=2),
    ]
    return Section("LPIPS and GFLOPs (×4)", parts), numbers


_LARGE = ("RCAN", "EDSR", "D-DBPN", "SRFBN", "VDSR")


def _claims(seconds: Mapping[str, float]) -> str:
    # What the slides say about the speed of A2F-SD, in their own times and in the given ones.
    published = {t.method: t.seconds for t in paper.RUNNING_TIME}
    ratios = [
        f"{name} {times / seconds['A2F-SD']:.1f} (slides: {published[name] / published['A2F-SD']:.1f})"
        for name, times in seconds.items()
        if name in ("CARN-M", *_LARGE)
    ]
    return f"Times relative to A2F-SD: {', '.join(ratios)}. The slides call A2F-SD 2 to 60 times as fast as these."


def running_time(measured: Sequence[Measured], progress: bool = True) -> tuple[Section, Numbers]:
    """Tabulates the seconds per image of the networks in the slides' table and of all variants, ×4.

    Args:
      measured: the models, for their PSNR on Urban100.
      progress: whether to show a progress bar.
    """
    device = measure.device_name()
    rows = [
        Cells(
            [
                t.method,
                "slides",
                thousands(t.parameters),
                billions(t.multiply_adds),
                f"{t.seconds:.4f}",
                f"{t.psnr:.2f}",
            ]
        )
        for t in paper.RUNNING_TIME
    ]
    numbers: Numbers = []
    titles = dict.fromkeys([*(t.method for t in paper.RUNNING_TIME), *(name.upper() for name in VARIANTS)])
    networks = networks_named(titles, 4)
    output = measure.timed_output()
    with progress_bar(total=len(networks), unit="network", description="running time", visible=progress) as bar:
        for title, network in networks.items():
            size = measure.sizes(network)
            seconds = measure.running_time(network, output)
            numbers.append({"model": title, "seconds": seconds, "device": device, "output": output})
            of_network = [m for m in measured if m.model.scale == 4 and m.row.method == title]
            psnr = [f"{m.datasets['urban100']['psnr']:.2f}" for m in of_network if "urban100" in m.datasets]
            sizes = [thousands(size["parameters"] / 1e3), billions(size["with_elementwise"] / 1e9)]
            source = "measured here" if of_network else "measured here, random weights"
            cells = [title, source, *sizes, f"{seconds:.4f}", " ".join(psnr) or MISSING]
            rows.append(Cells(cells, measured=True))
            bar.update()
    height, width = output
    platform = jax.local_devices()[0].platform
    parts: list[Part] = [
        f"Measured on {device} ({platform}) with JAX {jax.__version__}: the median time of repeated forward passes on "
        f"one image of noise, {width // 4}×{height // 4} → {width}×{height}, after compilation and warm-up, without "
        f"transfers between host and device. {'A CPU' if platform == 'cpu' else 'Another device'} is given "
        f"{'a smaller image than the size of Urban100' if platform == 'cpu' else 'the size of Urban100'}. "
        "Each network is one compiled program, which computes in float32; those of A2F evaluate the wide 3×3 "
        "convolutions "
        f"{'by the Winograd algorithm' if prefers_winograd(platform, jax.numpy.float32) else 'directly'}, as in "
        "upscaling on this device. The times do not depend on the weights. On a CPU, XLA computes the transposed "
        "convolutions of D-DBPN and SRFBN several times as slowly as others. PSNR is that on Urban100. The slides do "
        "not name their device, so only the ratios can be compared.",
        _claims({number["model"]: number["seconds"] for number in numbers}),
        Table(["Model", "Source", "Parameters", "Multi-adds", "Seconds", "PSNR (dB)"], rows, text_columns=2),
    ]
    return Section("Running time (×4)", parts), numbers
