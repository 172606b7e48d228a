import io
import itertools
import os
import warnings

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("matplotlib", reason="needs the extra [report]")

from matplotlib.axes import Axes

from a2f_jax.report import figures
from a2f_jax.report.figures import Panel, Point, block_weights_figure, tradeoff_figure, visual_figure
from a2f_jax.report.measure import BlockWeights

TWICE_THE_PAGE = 1536  # pixels


def read(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def has(image, color):
    return (abs(image - color).sum(-1) < 24).any()


@pytest.mark.parametrize("models", [1, 3])
def test_block_weights_figure_has_a_line_for_every_component(models, monkeypatch):
    lines = []
    plot = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda self, x, y, **style: (lines.append((list(x), y)), plot(self, x, y, **style))[1]
    )
    full = BlockWeights(
        {"x": [1.0, 0.5], "res": [0.2, 2.0], "aux": [0.3, -0.1]}, {"x": [4, 5], "res": [6, 7], "aux": [8, 9]}
    )
    baseline = BlockWeights({"x": [0.9], "res": [0.8]}, {"x": [3], "res": [2]})
    measured = [baseline, full, full][-models:]
    image = read(block_weights_figure({f"model {i}": m for i, m in enumerate(measured)}))
    assert image.shape[1] == TWICE_THE_PAGE
    wanted = [list(values.values()) for m in measured for values in m]
    assert [y for _, y in lines] == list(itertools.chain(*wanted))
    assert lines[-1][0] == [1, 2]
    for color in ((0, 114, 178), (213, 94, 0), (0, 158, 115)):  # blue, vermilion, green
        assert has(image, color)


def points(count, measured=0):
    rng = np.random.default_rng(0)
    sizes, psnr = 10 ** rng.uniform(1, 3, count), rng.uniform(30, 31, count)
    return [Point(f"Net-{i}", s, s / 5, p, i < measured) for i, (s, p) in enumerate(zip(sizes, psnr, strict=True))]


def test_tradeoff_figure_highlights_measured_networks():
    vermilion = (213, 94, 0)
    assert not has(read(tradeoff_figure(points(4), "Set14")), vermilion)
    assert has(read(tradeoff_figure(points(4, measured=1), "Set14")), vermilion)


def test_labels_do_not_overlap(monkeypatch):
    boxes = []
    label = figures._label

    def spy(axes, named, markers):
        label(axes, named, markers)
        boxes.append([text.get_window_extent() for text in axes.texts])
        assert [text.get_text() for text in axes.texts] == [name for _, _, name, _ in named]

    monkeypatch.setattr(figures, "_label", spy)
    tradeoff_figure(points(20), "Set14")
    for panel in boxes:
        assert len(panel) == 20
        assert not any(a.overlaps(b) for a, b in itertools.combinations(panel, 2))


def test_labels_do_not_cover_the_marker_of_a_measured_network_that_has_no_label(monkeypatch):
    covered = []
    label = figures._label

    def spy(axes, named, markers):
        label(axes, named, markers)
        assert len(markers) == 2 * len(named)
        centers = axes.transData.transform(markers)
        covered.append(sum(text.get_window_extent().contains(*at) for text in axes.texts for at in centers))

    monkeypatch.setattr(figures, "_label", spy)
    published = [p._replace(psnr=30 + (p.psnr - 30) / 2) for p in points(16)]
    tradeoff_figure([*published, *(p._replace(psnr=p.psnr + 0.045, measured=True) for p in published)], "Set14")
    assert covered == [0, 0]


def test_networks_without_multiply_adds_are_omitted_from_that_panel_only(monkeypatch):
    named = []
    monkeypatch.setattr(
        figures, "_label", lambda axes, points, markers: named.append([name for _, _, name, _ in points])
    )
    tradeoff_figure([Point("A", 10, 1, 30, False), Point("B", 20, None, 31, False)], "Set14")
    assert named == [["A", "B"], ["A"]]


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("shape", [(80, 120), (45, 900), (600, 65)])
def test_visual_figure_shows_the_same_crop_of_every_result(count, shape):
    truth = np.full((*shape, 3), 255, np.uint8)
    colors = [(250, 20, 20), (20, 250, 20), (20, 20, 250), (250, 250, 20), (20, 250, 250)][:count]
    panels = []
    for i, color in enumerate(colors):
        image = truth.copy()
        image[20:40, 30:60] = color  # the crop and nothing else
        panels.append(Panel(f"panel {i}", "details", image))
    image = read(visual_figure("whole", truth, (30, 20, 30, 20), panels))
    assert abs(image.shape[1] - TWICE_THE_PAGE) <= 1
    if shape[1] > 10 * shape[0]:  # the panels are below the image
        first = (abs(image - colors[0]).sum(-1) < 3).any(1).argmax()
        assert first > image.shape[1] * shape[0] / shape[1]
    areas = [(abs(image - color).sum(-1) < 3).sum() for color in colors]
    assert min(areas) > 10000
    assert max(areas) < 1.02 * min(areas)


@pytest.mark.parametrize("name", ["costs_$5_$6", os.fsdecode(b"\xff.png"), "写真", r"\alpha^"])
def test_any_file_name_can_be_a_caption(name):
    image = np.zeros((40, 60, 3), np.uint8)
    measured = BlockWeights({"x": [1.0, 2.0]}, {"x": [1.0, 2.0]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = [visual_figure(x, image, (8, 8, 20, 10), [Panel(x, "details", image)]) for x in (name, "")]
        assert (read(shown[0]) != read(shown[1])).any()
        shown = [block_weights_figure({x: measured}) for x in (name, "")]
        assert (read(shown[0]) != read(shown[1])).any()
