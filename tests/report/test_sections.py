import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="needs the extra [report]")

from a2f_jax.data import matlab_bicubic
from a2f_jax.data.sources import Pair, Source
from a2f_jax.errors import UserError
from a2f_jax.evaluation import paper
from a2f_jax.evaluation.metrics import psnr_y, ssim_y
from a2f_jax.evaluation.paper import COMPARISON
from a2f_jax.images import write_rgb
from a2f_jax.model import Model
from a2f_jax.models.a2f import A2F, ABLATIONS, build
from a2f_jax.models.fsrcnn import FSRCNN
from a2f_jax.models.vdsr import VDSR
from a2f_jax.report import sections
from a2f_jax.report.page import PageFigure, Table
from a2f_jax.report.sections import Example, Measured, scores

SET5 = {"set5": {"psnr": 32.064, "ssim": 0.89281, "lpips": 0.17321, "n": 5, "images": {}}}


@pytest.fixture
def measured(random_params):
    def make(network, datasets=SET5, label="runs/mine"):
        return Measured(label, Model(network, random_params(network)), datasets)

    return make


@pytest.fixture
def hr():
    coarse = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return matlab_bicubic(coarse, 8)


@pytest.fixture
def no_tradeoff(monkeypatch):
    """Replaces the drawing of scatter plots."""
    drawn = []
    monkeypatch.setattr(scores, "tradeoff_figure", lambda points, title: drawn.append(points) or b"png")
    return drawn


def tables(section):
    return [part for part in section.parts if isinstance(part, Table)]


def test_measured_rows_follow_the_published_row_of_the_same_network(measured, no_tradeoff):
    section, numbers = sections.comparison([measured(build("a2f-sd", 4))])
    two, four = tables(section)
    assert [row.measured for row in two.rows] == [False] * len(COMPARISON[2])
    assert [row.cells[0] for row in four.rows if not row.measured] == [row.method for row in COMPARISON[4]]
    place = next(i for i, row in enumerate(four.rows) if row.measured)
    assert four.rows[place - 1].cells[:2] == ["A2F-SD", "slides"]
    ours = ["A2F-SD", "measured: `runs/mine`", "320K", "18.2G", "32.06/0.8928", "–", "–", "–", "–"]
    assert four.rows[place].cells == ours
    assert [n["weights"] for n in numbers if n["weights"]] == ["runs/mine"]
    assert [part.name for part in section.parts if isinstance(part, PageFigure)] == ["tradeoff-x2", "tradeoff-x4"]
    # The scatter plots show Set14, which was not measured here.
    assert [len(points) for points in no_tradeoff] == [len(COMPARISON[2]), len(COMPARISON[4])]


def test_a_scale_without_published_results_has_a_table_of_its_own(measured, no_tradeoff):
    section, _ = sections.comparison([measured(build("a2f-sd", 3))])
    _, three, _ = tables(section)
    assert [row.cells[0] for row in three.rows] == ["A2F-SD"]


def test_unpublished_networks_are_sorted_by_their_parameters(measured, no_tradeoff):
    section, _ = sections.comparison([measured(A2F(scale=4, features=16, blocks=9))])
    rows = tables(section)[1].rows
    place = next(i for i, row in enumerate(rows) if row.measured)
    sizes = [float(row.cells[2].rstrip("K")) for row in rows]
    assert rows[place].cells[0] == "A2F-16X9"
    assert sizes[place - 1] <= sizes[place] <= sizes[place + 1]


def test_another_network_is_measured_next_to_its_published_row(no_tradeoff):
    fsrcnn = Measured("fsrcnn.pth", Model(FSRCNN(4), {}, {"network": "fsrcnn"}), SET5)
    four = tables(sections.comparison([fsrcnn])[0])[1]
    place = next(i for i, row in enumerate(four.rows) if row.measured)
    assert four.rows[place - 1].cells[:3] == ["FSRCNN", "slides", "12K"]
    assert four.rows[place].cells[:4] == ["FSRCNN", "measured: `fsrcnn.pth`", "13K", "0.7G"]


def test_weights_without_scores_have_no_row(measured, no_tradeoff):
    section, numbers = sections.comparison([measured(build("a2f-sd", 4), datasets={})])
    assert not any(row.measured for row in tables(section)[1].rows)
    assert not any(n["weights"] for n in numbers)


def test_running_time_section_states_what_was_measured(measured, monkeypatch):
    slow = {"RCAN": 6.0, "EDSR": 18.0, "DBPN": 5.0, "SRFBN": 4.0, "VDSR": 3.0, "CARN": 0.5}
    monkeypatch.setattr(scores.measure, "sizes", lambda _: {"parameters": 1000, "with_elementwise": 1e9})
    monkeypatch.setattr(scores.measure, "running_time", lambda n, output: slow.get(type(n).__name__, 0.25))
    section, numbers = sections.running_time([measured(build("a2f-sd", 4))])
    assert "computes in float32" in section.parts[0]
    assert "3×3 convolutions by the Winograd algorithm" in section.parts[0]  # on a CPU
    assert "96×64 → 384×256" in section.parts[0]
    # As the slides print them, 32.6 ms and 14.5 ms, and 874.6 ms.
    assert "RCAN 24.0 (slides: 60.3)" in section.parts[1]
    assert "CARN-M 2.0 (slides: 2.2)" in section.parts[1]
    rows = {row.cells[0]: (row.cells[1], row.cells[4]) for row in tables(section)[0].rows if row.measured}
    assert list(rows) == [*(t.method for t in paper.RUNNING_TIME), "A2F-S", "A2F-M"]
    assert rows["EDSR"] == ("measured here, random weights", "18.0000")
    assert rows["A2F-SD"] == ("measured here", "0.2500")
    assert {tuple(number["output"]) for number in numbers} == {(256, 384)}


def test_compared_networks_are_counted_next_to_the_slides_with_reasons(monkeypatch):
    some = {4: [row for row in paper.COMPARISON[4] if row.method in ("AWSRN-S", "A2F-S", "SRCNN")]}
    monkeypatch.setattr(paper, "COMPARISON", some)
    section, numbers = sections.compared_sizes(progress=False)
    rows = {row.cells[0]: row.cells[1:] for row in tables(section)[0].rows}
    assert rows["SRCNN"] == ["×4", "57,281", "57K", "52.7G", "52.7G", ""]
    assert rows["AWSRN-S"][3:] == ["33.7G", "37.7G", "slides: 37.7G appears to be a misprint of 33.7G"]
    assert [number["model"] for number in numbers] == ["SRCNN", "AWSRN-S"]


def test_measured_ablations_are_recognized_by_their_architecture(measured):
    noca = build("a2f-l", 2, attention=False)
    section, numbers = sections.ablation([measured(noca), measured(build("a2f-sd", 2))])
    (table,) = tables(section)
    assert [row.cells[0] for row in table.rows if row.measured] == ["A2F-L-NOCA"]
    marks = {row.cells[0]: tuple(row.cells[2:4]) for row in table.rows}
    assert marks["BASELINE"] == ("", "")
    assert marks["A2F-L-NOCA-MP"] == ("✓", "")
    assert marks["A2F-L"] == ("✓", "✓")
    assert [round(n["parameters"] / 1e3) for n in numbers] == [1190, 1338, 1329, 1368, 1363]


def test_an_ablation_that_is_not_in_the_slides_has_a_row_of_its_own(monkeypatch):
    monkeypatch.setitem(ABLATIONS, "deep", {"blocks": 20})
    (table,) = tables(sections.ablation([])[0])
    rows = {row.cells[0]: row.cells[4:] for row in table.rows}
    assert list(rows) == ["BASELINE", "BASELINE-MP", "A2F-L-NOCA", "A2F-L-NOCA-MP", "DEEP", "A2F-L"]
    assert rows["A2F-L"][1:3] == ["1363K", "306.1G"]
    assert [rows["DEEP"][1], *rows["DEEP"][3:]] == ["–"] * 7


def test_measured_head_kernels_are_recognized_by_their_architecture(measured):
    section, _ = sections.head_kernels([measured(build("a2f-sd", 4, head_kernel=5))])
    (table,) = tables(section)
    assert [row.cells[0] for row in table.rows] == ["1×1", "3×3", "5×5", "5×5", "7×7"]


def test_lpips_table_has_every_variant_and_the_measured_scores(measured):
    section, _ = sections.lpips([measured(build("a2f-sd", 4)), measured(build("a2f-s", 4), {"set5": {"psnr": 31.0}})])
    ours = {row.cells[0]: row.cells[1:] for row in tables(section)[0].rows if row.measured}
    assert ours["A2F-SD"] == ["measured: `runs/mine`", "320K", "0.320G", "0.1732", "–", "–", "–", "–"]
    assert ours["A2F-S"][:3] == ["counted", "331K", "0.329G"]
    # The slides show 1.370G, which includes elementwise operations.
    assert float(ours["A2F-L"][2].rstrip("G")) == pytest.approx(1.370, rel=0.015)
    # The slides print 0.445G; 32.5G for 1280×720 pixels are 0.577G for 128×128.
    assert ours["CARN-M"][:3] == ["counted", "294K", "0.577G"]
    order = [row.cells[0] for row in tables(section)[0].rows]
    assert order[:4] == ["AWSRN", "AWSRN", "AWSRN-SD", "AWSRN-SD"]


def test_lpips_of_another_network_is_shown_in_its_row():
    vdsr = Measured("vdsr.npz", Model(VDSR(4), {}, {"network": "vdsr"}), SET5)
    section, _ = sections.lpips([vdsr])
    (row,) = [row.cells for row in tables(section)[0].rows if row.cells[0] == "VDSR"]
    assert row == ["VDSR", "measured: `vdsr.npz`", "666K", "10.891G", "0.1732", "–", "–", "–", "–"]


def test_component_weights_equal_the_parameters(measured):
    small = measured(A2F(scale=4, features=4, blocks=2))
    section, numbers = sections.component_weights([small])
    assert [part.name for part in section.parts if isinstance(part, PageFigure)] == ["block-weights-x4"]
    params = small.model.params
    assert numbers[0]["weights"] == "runs/mine"
    assert numbers[0]["components"]["aux"] == [float(params[f"block_0{i}"]["lambda_aux"]) for i in range(2)]
    cells = tables(section)[0].rows[0].cells
    assert sum(int(cell.rstrip("%")) for cell in cells if cell.endswith("%")) == pytest.approx(100, abs=1)


def test_without_weights_of_an_a2f_the_section_says_so():
    fsrcnn = Measured("fsrcnn.pth", Model(FSRCNN(4), {}, {"network": "fsrcnn"}), SET5)
    for measured in ([], [fsrcnn]):
        section, numbers = sections.component_weights(measured)
        assert not numbers
        assert "requires weights of an A2F" in section.parts[-1]


def test_visual_comparison_measures_whole_images(measured, hr):
    small = measured(A2F(scale=4, features=4, blocks=1))
    lr = matlab_bicubic(hr, 1 / 4)
    again = small._replace(label="runs/again")
    pair = Pair("b", lr, hr)
    images = [("barbara", (8, 8, 24, 16)), ("barbara", (0, 0, 24, 16)), ("фото", (0, 0, 24, 16))]
    examples = {4: [Example(name, pair, crop) for name, crop in images]}
    section, numbers = sections.visual_comparison([small, again], examples)
    bicubic, ours = matlab_bicubic(lr, 4), small.model.upscale(lr)
    assert [(n["psnr"], n["ssim"]) for n in numbers[:3]] == [
        (psnr_y(sr, hr, 4), ssim_y(sr, hr, 4)) for sr in (bicubic, ours, ours)
    ]
    figures = [part.name for part in section.parts if isinstance(part, PageFigure)]
    assert figures == ["visual-x4-barbara", "visual-x4-barbara-2", "visual-x4-image"]
    rows = tables(section)[0].rows
    assert [row.cells[0] for row in rows if row.measured] == ["bicubic", "A2F-4X1", "runs/again"]
    assert ["A2F-SD", "slides", "25.962", "0.7491"] in [row.cells for row in rows]


def test_default_examples_are_barbara_and_a_facade_or_photographs(tmp_path, hr):
    assert [example.name for example in sections.default_examples(4, None)] == ["motorcycle_left", "rocket"]
    folder = tmp_path / "Set14" / "image_SRF_4"
    big = np.tile(hr, (2, 2, 1))
    for i in range(2):
        write_rgb(folder / f"img_00{i + 1}_SRF_4_HR.png", big + np.uint8(i))
    found = sections.default_examples(4, tmp_path)
    assert [example.name for example in found] == ["barbara", "rocket"]
    np.testing.assert_array_equal(found[0].pair.hr, big + np.uint8(1))
    assert [example.name for example in sections.default_examples(2, tmp_path)] == ["motorcycle_left", "rocket"]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_default_crops_lie_inside_the_photographs(scale):
    assert all(example.fits for example in sections.default_examples(scale, None))


def test_a_narrow_crop_is_an_error(tmp_path, hr):
    write_rgb(tmp_path / "a.png", hr)
    with pytest.raises(UserError, match=r"a\.png: the crop of 10×72 is too narrow: choose one"):
        sections.example_from_file(Source("a", tmp_path / "a.png"), (0, 0, 10, 72), 4)


def test_a_crop_outside_the_image_is_an_error(tmp_path, hr):
    write_rgb(tmp_path / "a.png", hr)
    source = Source("a", tmp_path / "a.png")
    assert sections.example_from_file(source, (0, 0, 96, 72), 4).name == "a"
    with pytest.raises(UserError, match=r"a\.png: the crop 0,0,97,72 does not lie inside the image of 96×72"):
        sections.example_from_file(source, (0, 0, 97, 72), 4)
