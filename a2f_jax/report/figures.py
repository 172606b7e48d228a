"""The figures of the report, drawn by matplotlib as PNG files for high-resolution screens.

The colors are from the palette of Okabe and Ito ("Color universal design", 2008), which color-blind readers can
distinguish. Marker shapes carry the same information.
"""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from a2f_jax.report.measure import BlockWeights

_BLUE, _VERMILION, _GREEN, _GRAY = "#0072B2", "#D55E00", "#009E73", "#8A8A8A"
_WIDTH = 8.0  # inches
_Inches = tuple[float, float]
_STYLE: dict[str, Any] = {
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#606060",
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "xtick.color": "#404040",
    "ytick.color": "#404040",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.06,
    "savefig.dpi": 192,
}


def _literal(name: str) -> str:
    # The name of a file: Matplotlib takes what is between two dollar signs for a formula, and cannot draw what is not
    # UTF-8.
    return name.encode(errors="backslashreplace").decode().replace("$", r"\$")


def _png(figure: Figure, colors: int | None = None) -> bytes:
    # A palette makes charts several times smaller without visible loss. Photographs would suffer.
    drawn, file = io.BytesIO(), io.BytesIO()
    with warnings.catch_warnings():
        # What Matplotlib's font lacks, such as Chinese, is drawn as boxes. The page has the name.
        warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
        figure.savefig(drawn, format="png")
    image = Image.open(drawn).convert("RGB")
    if colors:
        image = image.quantize(colors, dither=Image.Dither.NONE)
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


# Component -> its name in the legend, its line style.
_COMPONENTS = {
    "x": (r"$\lambda_x$, input of the block", {"color": _BLUE, "marker": "o"}),
    "res": (r"$\lambda_{res}$, residual branch", {"color": _VERMILION, "marker": "s"}),
    "aux": (r"$\lambda_{aux}$, auxiliary features", {"color": _GREEN, "marker": "^"}),
}


def block_weights_figure(models: Mapping[str, BlockWeights]) -> bytes:
    """Plots the weights of the three components in every block, and their magnitudes on real images.

    Args:
      models: the measurement of each network by title, from left to right.

    Returns:
      A PNG file.
    """
    with matplotlib.rc_context(_STYLE):
        if len(models) > 1:  # weights above, magnitudes below
            figure = Figure(figsize=(_WIDTH, 4.6))
            panels = figure.subplots(2, len(models), sharex="col", sharey="row")
        else:  # side by side
            figure = Figure(figsize=(_WIDTH, 2.7))
            panels = figure.subplots(1, 2).reshape(2, 1)
        for column, (title, measured) in zip(panels.T, models.items(), strict=True):
            for axes, values in zip(column, (measured.weights, measured.magnitudes), strict=True):
                for name, weights in values.items():
                    label, line = _COMPONENTS[name]
                    axes.plot(range(1, len(weights) + 1), weights, markersize=3.5, linewidth=1.3, label=label, **line)
                axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
            column[0].set_title(_literal(title), fontweight="bold")
            column[1].set_xlabel("block")
        if len(models) == 1:
            panels[1, 0].set_title(panels[0, 0].get_title(), fontweight="bold")
            panels[0, 0].set_xlabel("block")
        for row in panels:
            row[0].set_ylim(bottom=min(0, row[0].get_ylim()[0]))
        panels[0, 0].set_ylabel("weight λ")
        panels[1, 0].set_ylabel("|λ| · RMS of the branch\n(network units)")
        fullest = max(panels[0], key=lambda axes: len(axes.lines))
        figure.legend(*fullest.get_legend_handles_labels(), loc="outside upper center", ncols=3)
        return _png(figure, colors=64)


class Point(NamedTuple):
    """A network in a scatter plot.

    Attributes:
      method: the name of the network.
      parameters: the number of parameters, in thousands.
      multiply_adds: the multi-adds for an output of 1280×720, in units of 1e9; None omits the network from that panel.
      psnr: the PSNR, in dB.
      measured: whether the PSNR was measured rather than published.
    """

    method: str
    parameters: float
    multiply_adds: float | None
    psnr: float
    measured: bool


_SAME_PLACE = 0.05
"""A measured PSNR within this distance, in dB, of the published one of the same method is not labeled again."""

_HORIZONTAL = {-1: "right", 0: "center", 1: "left"}
_VERTICAL = {-1: "top", 0: "center", 1: "bottom"}


def _box(center: np.ndarray, size: np.ndarray, direction: np.ndarray, distance: float) -> np.ndarray:
    # The corners `[[x0, y0], [x1, y1]]` of a text of this size, at this distance from a point.
    corner = center + direction * distance + (direction - 1) / 2 * size
    return np.array([corner, corner + size])


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.prod(np.maximum(0, np.minimum(a[1], b[1]) - np.maximum(a[0], b[0]))))


def _label(
    axes: Axes, points: Sequence[tuple[float, float, str, dict[str, Any]]], markers: Sequence[tuple[float, float]]
) -> None:
    # Each point is x, y, name and style. A name takes the place, of those near its point, where it covers least of the
    # markers, also of points without a name, and of the names that are there already. The iterative placement of
    # adjustText was tried: in the dense groups of these figures it leaves names on top of each other and of markers.
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    frame = axes.get_window_extent().get_points()
    point = figure.dpi / 72  # pixels
    centers = axes.transData.transform([(x, y) for x, y, _, _ in points])
    taken = [np.array([at - 4 * point, at + 4 * point]) for at in axes.transData.transform(markers)]
    directions = [np.array([x, y]) for x in (1, -1, 0) for y in (0, 1, -1) if x or y]
    places = [(direction, distance) for distance in (7, 12, 24) for direction in directions]
    for (x, y, name, style), center in zip(points, centers, strict=True):
        note = axes.annotate(_literal(name), (x, y), (0, 0), textcoords="offset points", fontsize=7.5, **style)
        note.set_path_effects([withStroke(linewidth=2, foreground="white")])
        size = np.array(note.get_window_extent().size) + 1.4 * point

        def cost(place: tuple[np.ndarray, float], center: np.ndarray = center, size: np.ndarray = size) -> float:
            box = _box(center, size, place[0], place[1] * point)
            outside = np.prod(size) - _overlap(box, frame)
            # Among equally free places, the closest wins.
            away = np.hypot(*place[0]) * place[1] * point
            return sum(_overlap(box, other) for other in taken) + 3 * outside + 0.02 * size[1] * away

        direction, distance = min(places, key=cost)
        note.set_position(tuple(direction * distance))
        note.set(ha=_HORIZONTAL[direction[0]], va=_VERTICAL[direction[1]])
        box = _box(center, size, direction, distance * point)
        taken.append(box)
        nearest = np.clip(center, *box)
        if np.hypot(*(nearest - center)) > 8 * point:
            ends = axes.transData.inverted().transform([center, nearest])
            axes.plot(*ends.T, color="#B0B0B0", linewidth=0.5, zorder=1)


def _in_units(units: str) -> Callable[[float, int], str]:
    # With the units `KM`, 100 is written as `100 K` and 1000 as `1 M`.
    return lambda value, _: f"{value:g} {units[0]}" if value < 1000 else f"{value / 1000:g} {units[1]}"


def tradeoff_figure(points: Sequence[Point], dataset: str) -> bytes:
    """Plots PSNR versus parameters and versus multi-adds.

    Args:
      points: the networks.
      dataset: the name of the benchmark set, for the axis label.

    Returns:
      A PNG file.
    """
    kinds = {
        "other networks, published": ({"color": _GRAY, "marker": "o", "s": 18}, {"color": "#606060"}),
        "A2F, published": ({"color": _BLUE, "marker": "o", "s": 30}, {"color": _BLUE, "fontweight": "bold"}),
        "measured": (
            {"facecolor": "none", "edgecolor": _VERMILION, "marker": "D", "s": 62, "linewidth": 1.3},
            {"color": _VERMILION, "fontweight": "bold"},
        ),
    }

    def kind(point: Point) -> str:
        if point.measured:
            return "measured"
        return "A2F, published" if point.method.startswith("A2F") else "other networks, published"

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 5.2))
        panels = figure.subplots(1, 2, sharey=True)
        for axes, size, units in zip(panels, ("parameters", "multiply_adds"), ("KM", "GT"), strict=True):
            shown = [point for point in points if getattr(point, size) is not None]
            for name, (marker, _) in kinds.items():
                of_kind = [point for point in shown if kind(point) == name]
                if of_kind:
                    x, y = zip(*((getattr(p, size), p.psnr) for p in of_kind), strict=True)
                    axes.scatter(x, y, label=name, zorder=3, **marker)
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(_in_units(units)))
            axes.margins(x=0.09, y=0.07)
        panels[0].set_xlabel("parameters")
        panels[1].set_xlabel("multi-adds for an output of 1280×720")
        panels[0].set_ylabel(f"PSNR on {dataset} (dB)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
        published = {point.method: point.psnr for point in points if not point.measured}
        for axes, size in zip(panels, ("parameters", "multiply_adds"), strict=True):
            # Most measured points lie on the published point of the same network, which is labeled already.
            named = [
                p
                for p in points
                if getattr(p, size) is not None
                and not (p.measured and abs(published.get(p.method, 0) - p.psnr) < _SAME_PLACE)
            ]
            named.sort(key=kind)  # A2F is labeled first, where space is free
            labels = [(getattr(p, size), p.psnr, p.method, kinds[kind(p)][1]) for p in named]
            _label(axes, labels, [(getattr(p, size), p.psnr) for p in points if getattr(p, size) is not None])
        return _png(figure, colors=64)


_NARROWEST = 1.1
"""Inches; if panels beside the image were narrower, which their captions are not, they are placed below it."""

_TALLEST = 2.4
"""Height in inches of an image with panels below it."""


class Panel(NamedTuple):
    """One result in a visual comparison.

    Attributes:
      name: the first line of the caption.
      details: the remaining lines of the caption.
      image: the whole result, uint8 RGB `[H, W, 3]`.
    """

    name: str
    details: str
    image: np.ndarray


def visual_figure(name: str, truth: np.ndarray, crop: tuple[int, ...], panels: Sequence[Panel]) -> bytes:
    """Draws the whole image with the crop marked, and next to or below it the enlarged crop of every result.

    Args:
      name: the caption of the whole image.
      truth: the ground truth, uint8 RGB `[H, W, 3]`.
      crop: left, top, width and height of the enlarged region, in pixels.
      panels: the results, in reading order.

    Returns:
      A PNG file.
    """
    left, top, width, height = crop
    columns = len(panels) if len(panels) <= 3 else min(-(-len(panels) // 2), 5)
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context({**_STYLE, "axes.grid": False, "figure.constrained_layout.use": False}):
        gap, caption = 0.1, 0.5
        # Solved so that the whole image is as high as the rows of panels next to it, and all fills the page width.
        aspect, panel_aspect = truth.shape[1] / truth.shape[0], width / height

        between = (rows - 1) * (caption + gap)
        panel_width = (_WIDTH - columns * gap - aspect * between) / (columns + aspect * rows / panel_aspect)
        beside = panel_width >= _NARROWEST
        if not beside:
            columns = min(len(panels), 5)
            rows = -(-len(panels) // columns)
            panel_width = (_WIDTH - (columns - 1) * gap) / columns
        panel_height = panel_width / panel_aspect
        panels_height = rows * (panel_height + caption + gap) - caption - gap
        whole_height = panels_height if beside else min(_WIDTH / aspect, _TALLEST)
        right, down = (whole_height * aspect + gap, 0.0) if beside else (0.0, whole_height + caption + gap)
        page_height = down + panels_height + caption
        figure = Figure(figsize=(_WIDTH, page_height))

        def place(corner: _Inches, size: _Inches, pixels: np.ndarray, name: str, details: str) -> Axes:
            (x, y), (w, h) = corner, size
            axes = figure.add_axes((x / _WIDTH, 1 - (y + h) / page_height, w / _WIDTH, h / page_height))
            axes.imshow(pixels, interpolation="nearest", aspect="auto")
            axes.set_axis_off()
            axes.annotate(_literal(name), (0.5, 0), (0, -3), "axes fraction", "offset points", ha="center", va="top")
            axes.annotate(
                details, (0.5, 0), (0, -14), "axes fraction", "offset points",
                ha="center", va="top", fontsize=7.5, color="#505050", linespacing=1.25,
            )  # fmt: skip
            return axes

        whole = place((0, 0), (whole_height * aspect, whole_height), truth, name, f"{truth.shape[1]}×{truth.shape[0]}")
        whole.images[0].set_interpolation("hanning")  # avoids aliasing where the image is downscaled
        frame = Rectangle((left - 0.5, top - 0.5), width, height, fill=False, color=_VERMILION, linewidth=1.6)
        frame.set_path_effects([withStroke(linewidth=3.6, foreground="white")])
        whole.add_patch(frame)
        for i, panel in enumerate(panels):
            x = right + (i % columns) * (panel_width + gap)
            y = down + (i // columns) * (panel_height + caption + gap)
            pixels = panel.image[top : top + height, left : left + width]
            place((x, y), (panel_width, panel_height), pixels, panel.name, panel.details)
        return _png(figure)
