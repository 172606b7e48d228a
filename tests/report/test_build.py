import io
import json
import re
import sys

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("matplotlib", reason="needs the extra [report]")

from a2f_jax import buckets, cli
from a2f_jax.buckets import bucket_path
from a2f_jax.data import matlab_bicubic
from a2f_jax.errors import UserError
from a2f_jax.evaluation import paper
from a2f_jax.images import write_rgb
from a2f_jax.model import Model, save
from a2f_jax.models.a2f import build
from a2f_jax.report import measure
from a2f_jax.report.build import is_incomplete, report


@pytest.fixture
def folders(tmp_path, random_params, monkeypatch):
    """Weights, a benchmark set of one image, and a photograph, with the slow measurements replaced."""
    monkeypatch.setattr(measure, "xla_flops", lambda network: 2.1e9)
    monkeypatch.setattr(measure, "running_time", lambda network, output: 0.25)
    monkeypatch.setattr(paper, "COMPARISON", {scale: rows[:4] for scale, rows in paper.COMPARISON.items()})
    monkeypatch.setattr(paper, "RUNNING_TIME", paper.RUNNING_TIME[5:])
    monkeypatch.setattr(paper, "LPIPS", paper.LPIPS[-2:])
    network = build("a2f-s", 4)
    save(Model(network, random_params(network)), tmp_path / "runs/s.safetensors")
    image = matlab_bicubic(np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8), 8)
    write_rgb(tmp_path / "benchmark/Set5/image_SRF_4/img_001_SRF_4_HR.png", image)
    write_rgb(tmp_path / "photo.png", image)
    return tmp_path


@pytest.fixture(autouse=True)
def a_folder_for_weights(tmp_path):
    (tmp_path / "runs").mkdir()


def test_report_has_all_its_files_and_highlights_measured_rows(folders):
    page = report(
        folders / "out",
        weights=[folders / "runs/s.safetensors"],
        data_dir=folders / "benchmark",
        comparisons=[(folders / "photo.png", (8, 8, 30, 20))],
    )
    text = (folders / "out/report.md").read_text()
    figures = re.findall(r"\]\((figures/.+?)\)", text)
    assert figures == [
        "figures/block-weights-x4.png",
        "figures/tradeoff-x2.png",
        "figures/tradeoff-x4.png",
        "figures/visual-x4-photo.png",
    ]
    written = {path.relative_to(folders / "out").as_posix() for path in (folders / "out").rglob("*") if path.is_file()}
    assert written == {"report.md", "report.html", "report.json", *figures}
    for figure in figures:
        assert Image.open(io.BytesIO((folders / "out" / figure).read_bytes())).width == pytest.approx(1536, abs=1)
    assert page == folders / "out/report.html"
    assert page.read_text().count('src="data:image/png;base64,') == len(figures)

    numbers = json.loads((folders / "out/report.json").read_text())
    psnr = numbers["benchmarks"]["s.safetensors"]["set5"]["psnr"]
    assert f"| **A2F-S** | **measured: `s.safetensors`** | **331K** | **18.6G** | **{psnr:.2f}/" in text
    assert len(numbers["model_sizes"]) == 12
    assert {n["seconds"] for n in numbers["running_time"]} == {0.25}
    assert [n["image"] for n in numbers["visual_comparison"]] == ["photo", "photo"]
    # The report does not reveal local paths.
    assert str(folders) not in text + page.read_text() + json.dumps(numbers)


def test_a_report_is_written_to_a_bucket_as_to_a_folder(folders, bucket):
    report(folders / "out", progress=False)
    page = report(f"{bucket}/out", progress=False)
    assert str(page) == f"{bucket}/out/report.html"
    local = {p.relative_to(folders / "out").as_posix(): p for p in (folders / "out").rglob("*") if p.is_file()}
    assert set(buckets.list_files(bucket_path(f"{bucket}/out"))) == set(local)
    assert page.read_bytes() == local["report.html"].read_bytes()
    assert not is_incomplete(bucket_path(f"{bucket}/out"))
    assert not is_incomplete(bucket_path(f"{bucket}/none"))


def test_without_weights_the_report_shows_published_results(folders, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    report(folders / "out", progress=False)
    assert capsys.readouterr().err == ""
    numbers = json.loads((folders / "out/report.json").read_text())
    assert not numbers["benchmarks"]
    assert not any(row["weights"] for row in numbers["comparison"])
    assert "| A2F-SD | slides | 320K | 18.2G | 32.06/0.8928 |" in (folders / "out/report.md").read_text()


def test_an_interrupted_report_says_that_it_is_incomplete_and_is_replaced_without_being_asked(folders, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("a2f_jax.report.sections.ablation", interrupt)
        with pytest.raises(KeyboardInterrupt):
            report(folders / "out", progress=False)
    assert "This report is incomplete" in (folders / "out/report.md").read_text()
    assert is_incomplete(folders / "out")

    assert cli.main(["report", "--output", str(folders / "out")]) == 0
    assert "incomplete" not in (folders / "out/report.md").read_text()
    assert not is_incomplete(folders / "out")
    assert cli.main(["report", "--output", str(folders / "out")]) == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"datasets": ["set6"]}, "set6 is not a benchmark set"),
        ({"data_dir": "nowhere"}, "nowhere is not a folder: pass the folder"),
        ({"weights": ["runs/none.pt"]}, "no weights at"),
        ({"weights": ["runs/s.safetensors"] * 2}, r"s\.safetensors"),
        ({"weights": ["runs/s.safetensors"], "comparisons": [("photo.png", (70, 0, 20, 20))]}, "not lie inside"),
        ({"comparisons": [("photo.png", (8, 8, 30, 20))]}, "requires weights to compare"),
    ],
)
def test_invalid_arguments_are_errors_before_any_measurement(folders, monkeypatch, wrong, message):
    monkeypatch.chdir(folders)
    monkeypatch.setattr("a2f_jax.report.sections.model_sizes", lambda *_: pytest.fail("started to measure"))
    with pytest.raises(UserError, match=message):
        report("out", **wrong)
    assert not (folders / "out").exists()


def test_unwritable_folder_is_an_error_before_any_measurement(folders, monkeypatch):
    monkeypatch.setattr("a2f_jax.report.sections.model_sizes", lambda *_: pytest.fail("started to measure"))
    with pytest.raises(UserError, match=r"cannot write to .*photo\.png"):
        report(folders / "photo.png" / "out")
    (folders / "out").mkdir()
    (folders / "out/figures").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*out/figures: .* is not a folder"):
        report(folders / "out")


def test_error_names_the_extra_if_matplotlib_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=re.escape("pip install 'a2f_jax[report]'")):
        report(tmp_path / "out")


def test_a_tilde_stands_for_the_home_folder(folders, monkeypatch):
    monkeypatch.setenv("HOME", str(folders))
    options = {"data_dir": "~/benchmark", "datasets": [], "comparisons": [("~/photo.png", (8, 8, 30, 20))]}
    page = report("~/out", weights=["~/runs/s.safetensors"], **options, progress=False)
    assert page == folders / "out/report.html"
    assert page.exists()
    with pytest.raises(UserError, match=rf"{folders}/nowhere is not a folder"):
        report("~/out", data_dir="~/nowhere")
