"""The sections about the size of the networks: the variants and the ablations."""

from collections.abc import Sequence

from a2f_jax.catalog import BENCHMARK_SETS
from a2f_jax.evaluation import paper
from a2f_jax.evaluation.paper import SETS
from a2f_jax.model import variant_of
from a2f_jax.models.a2f import ABLATIONS, SCALES, VARIANTS, build
from a2f_jax.progress import progress_bar
from a2f_jax.report import measure
from a2f_jax.report.page import Cells, Part, Section, Table
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

_ABLATION_METHODS = {
    "baseline": "BASELINE",
    "baseline_mp": "BASELINE-MP",
    "noca": "A2F-L-NOCA",
    "noca_mp": "A2F-L-NOCA-MP",
    "": "A2F-L",
}
"""The names in the slides of the ablations in `ABLATIONS` and of the whole network."""


def model_sizes(progress: bool = True) -> tuple[Section, Numbers]:
    """Tabulates parameters, multi-adds and XLA's cost estimate of every variant and scale.

    Args:
      progress: whether to show a progress bar.
    """
    numbers: Numbers = []
    rows = []
    networks = [(variant, scale) for variant in VARIANTS for scale in SCALES]
    with progress_bar(total=len(networks), unit="network", description="sizes", visible=progress) as bar:
        for variant, scale in networks:
            network = build(variant, scale)
            size = measure.sizes(network)
            flops = measure.xla_flops(network)
            published = {row.method.lower(): row for row in paper.COMPARISON.get(scale, ())}.get(variant)
            numbers.append({"variant": variant, "scale": scale, **size, "xla_flops": flops})
            rows.append(
                Cells(
                    [
                        variant.upper(),
                        f"×{scale}",
                        f"{size['parameters']:,}",
                        thousands(published.parameters) if published else MISSING,
                        billions(size["multiply_adds"] / 1e9, 2),
                        billions(size["with_elementwise"] / 1e9, 2),
                        billions(published.multiply_adds) if published else MISSING,
                        f"{flops / 1e9:.2f}" if flops else MISSING,
                        f"{flops / 2 / size['multiply_adds']:.3f}" if flops else MISSING,
                    ]
                )
            )
            bar.update()
    heading = [
        *("Model", "Scale", "Parameters", "slides"),
        *("Multi-adds", "with biases, ReLU, mean", "slides", "XLA: GFLOPs", "÷ 2 multi-adds"),
    ]
    parts: list[Part] = [
        "Parameters and multi-adds are counted in the traced networks. Multi-adds are those of convolutions and matrix "
        "products for an output of 1280×720. The authors count more: adding one operation for every bias, every ReLU "
        "and every value that channel attention averages reproduces their numbers. The slides contain no results for "
        "×3.",
        "As an independent check, the last columns show XLA's cost analysis of the network compiled for "
        f"{measure.device_name()} in float32 with direct convolutions, in which a multi-add is two operations, "
        "elementwise operations count, and products with the zero padding do not.",
        Table(heading, rows, text_columns=2),
    ]
    return Section("Size of the models", parts), numbers


# What is known about counts that are not those of the slides.
_REMARKS = {
    ("FSRCNN", 2): "slides: transposed convolution at SR size",
    ("FSRCNN", 4): "slides: transposed convolution at SR size",
    ("DRCN", 2): "slides: a factor of 10 is missing",
    ("DRCN", 4): "slides: a factor of 10 is missing",
    ("AWSRN-S", 4): "slides: 37.7G appears to be a misprint of 33.7G",
    ("SRFBN-S", 2): "slides: repeat the parameters of ×4",
    ("SRFBN-S", 4): "slides: an image is computed in each of the four steps, not only in the last",
    ("LapSRN", 2): "slides: repeat the parameters of ×4; their multi-adds are unexplained",
    ("LapSRN", 4): "slides: transposed convolutions at SR size",
    ("SRDenseNet", 4): "slides: transposed convolutions at SR size",
    ("MSRN", 4): "slides: last layers counted at LR size",
    ("FALSR-C", 2): "the published weights are larger than the slides say",
    ("CARN-M", 2): "slides: upsampling layers of all scales together",
    ("CARN-M", 4): "slides: upsampling layers of all scales together",
    ("CARN", 2): "slides: upsampling layers of all scales together",
    ("CARN", 4): "slides: upsampling layers of all scales together",
}


def compared_sizes(progress: bool = True) -> tuple[Section, Numbers]:
    """Tabulates parameters and multi-adds of the networks that the slides compare A2F with.

    Args:
      progress: whether to show a progress bar.
    """
    numbers: Numbers = []
    rows = []
    cases = [
        (scale, row, network)
        for scale, published in paper.COMPARISON.items()
        for row in published
        for network in networks_named([row.method], scale).values()
        if row.method.lower() not in VARIANTS
    ]
    with progress_bar(total=len(cases), unit="network", description="sizes of others", visible=progress) as bar:
        for scale, row, network in cases:
            size = measure.sizes(network)
            numbers.append({"model": row.method, "scale": scale, **size})
            cells = [row.method, f"×{scale}", f"{size['parameters']:,}", thousands(row.parameters)]
            cells += [billions(size["multiply_adds"] / 1e9), billions(row.multiply_adds)]
            rows.append(Cells([*cells, _REMARKS.get((row.method, scale), "")]))
            bar.update()
    heading = ["Model", "Scale", "Parameters", "slides", "Multi-adds", "slides", "Remark"]
    parts: list[Part] = [
        "The networks of the slides that exist in this package, counted as above, next to what the slides print. "
        "Transposed convolutions are counted at the size of their input. The slides leave out biases in some rows.",
        Table(heading, rows, text_columns=2),
    ]
    return Section("Size of the compared networks", parts), numbers


def ablation(measured: Sequence[Measured]) -> tuple[Section, Numbers]:
    """Tabulates the effect of the projection unit and of channel attention, A2F-L ×2."""
    numbers: Numbers = []
    rows = []
    slides = {row.method: row for row in paper.ABLATION}
    for name, options in {**ABLATIONS, "": {}}.items():
        network = build("a2f-l", 2, **options)
        size = measure.sizes(network)
        method = _ABLATION_METHODS.get(name, name.upper())
        published = slides.get(method)
        numbers.append({"name": method, "run": name, **size})
        run = f"`ablation.py:{name}`" if name else "`a2f.py:l_x2`"
        units = ["✓" if network.auxiliary else "", "✓" if network.auxiliary and network.attention else ""]
        sizes = [
            thousands(size["parameters"] / 1e3, 1),
            thousands(published.parameters) if published else MISSING,
            billions(size["with_elementwise"] / 1e9),
            billions(published.multiply_adds) if published else MISSING,
        ]
        scores = published.scores if published else {}
        rows.append(Cells([method, run, *units, *sizes, *score_cells(scores, "psnr")]))
        for m in measured:
            if m.datasets and m.model.scale == 2 and m.model.variant == variant_of(network):
                cells = [
                    method,
                    measured_as(m),
                    *units,
                    sizes[0],
                    "",
                    sizes[2],
                    "",
                    *score_cells(m.datasets, "psnr"),
                ]
                rows.append(Cells(cells, measured=True))
    sets = [BENCHMARK_SETS[name].title for name in SETS]
    heading = ["Model", "Run", "PU", "CA", "Parameters", "slides", "Multi-adds", "slides", *sets]
    parts: list[Part] = [
        "PU is the projection unit and CA is channel attention. MP stands for more parameters: 18 instead of 16 blocks "
        "for the baseline, or a depthwise 3×3 convolution before each projection. Multi-adds are counted as the "
        "authors count them; PSNR is in dB.",
        Table(heading, rows, text_columns=4),
    ]
    return Section("Ablation: projection unit and channel attention (A2F-L ×2)", parts), numbers


def head_kernels(measured: Sequence[Measured]) -> tuple[Section, Numbers]:
    """Tabulates the effect of the kernel size of the head, A2F-SD ×4."""
    numbers: Numbers = []
    rows = []
    for published in paper.HEAD_KERNELS:
        kernel = int(published.method[0])
        network = build("a2f-sd", 4, head_kernel=kernel)
        size = measure.sizes(network)
        numbers.append({"head_kernel": kernel, **size})
        run = "`a2f.py:sd_x4`" if kernel == 3 else f"`ablation.py:head{kernel}`"
        parameters = thousands(size["parameters"] / 1e3, 2)
        rows.append(
            Cells(
                [
                    published.method,
                    run,
                    parameters,
                    thousands(published.parameters, 1),
                    *score_cells(published.scores, "psnr"),
                ]
            )
        )
        for m in measured:
            if m.datasets and m.model.scale == 4 and m.model.variant == variant_of(network):
                cells = [published.method, measured_as(m), parameters, "", *score_cells(m.datasets, "psnr")]
                rows.append(Cells(cells, measured=True))
    heading = ["Kernel", "Run", "Parameters", "slides", *(BENCHMARK_SETS[name].title for name in SETS)]
    parts: list[Part] = [
        "PSNR is in dB. The published 38.13 dB on Manga109 with a 5×5 kernel appears to be a misprint of 30.13 dB.",
        Table(heading, rows, text_columns=2),
    ]
    return Section("Ablation: kernel of the head (A2F-SD ×4)", parts), numbers
