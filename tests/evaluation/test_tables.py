import json
import math
import os
import runpy

import pytest

from a2f_jax.catalog import BENCHMARK_SETS, BenchmarkSet
from a2f_jax.errors import UserError
from a2f_jax.evaluation import paper
from a2f_jax.evaluation.tables import markdown_table, terminal_table, write_results


def result(model="a2f-sd", scale=4, **datasets):
    return {
        "model": model,
        "scale": scale,
        "weights": "sd.safetensors",
        "datasets": {name: {**scores, "n": 1, "images": {"img": dict(scores)}} for name, scores in datasets.items()},
    }


def test_table_shows_the_published_score_and_the_difference():
    table = terminal_table([result(set5={"psnr": 32.0591, "ssim": 0.89312})])
    assert table.splitlines() == [
        "dataset  model      images  PSNR/dB  paper      Δ    SSIM   paper        Δ",
        "-" * 74,
        "set5     a2f-sd ×4       1   32.059  32.06  +0.00  0.8931  0.8928  +0.0003",
    ]


def test_rows_are_grouped_by_dataset():
    scores = {"psnr": 30.0, "ssim": 0.9, "lpips": 0.2}
    ours = result(set5=scores, sample=scores)
    bicubic = result("bicubic", sample=scores, set5=scores)
    ours["weights"] = bicubic["weights"] = None
    assert markdown_table([bicubic, ours]).splitlines() == [
        "| dataset | model | images | PSNR/dB | paper | Δ | SSIM | paper | Δ | LPIPS | paper | Δ |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| sample | bicubic ×4 | 1 | 30.000 |  |  | 0.9000 |  |  | 0.2000 |  |  |",
        "| sample | a2f-sd ×4 | 1 | 30.000 |  |  | 0.9000 |  |  | 0.2000 |  |  |",
        "| set5 | bicubic ×4 | 1 | 30.000 |  |  | 0.9000 |  |  | 0.2000 |  |  |",
        "| set5 | a2f-sd ×4 | 1 | 30.000 | 32.06 | -2.06 | 0.9000 | 0.8928 | +0.0072 | 0.2000 | 0.1731 | +0.0269 |",
    ]


def test_weights_tell_several_models_apart():
    scores = {"psnr": 30.0, "ssim": 0.9}
    authors, ours = result(scale=3, set5=scores), result(scale=3, set5=scores)
    ours["weights"] = "runs/sd_x3"
    assert terminal_table([authors, ours]).splitlines()[::2] == [
        "dataset  model      weights         images  PSNR/dB    SSIM",
        "set5     a2f-sd ×3  sd.safetensors       1   30.000  0.9000",
    ]
    assert "| set5 | a2f-sd ×3 | runs/sd_x3 | 1 | 30.000 | 0.9000 |" in markdown_table([authors, ours]).splitlines()


def test_published_scores_are_found_under_any_spelling_of_the_dataset():
    assert "| BSD100 | a2f-sd ×4 | 1 | 27.488 | 27.48 | +0.01 |" in markdown_table(
        [result(BSD100={"psnr": 27.488, "ssim": 0.7335})]
    )


def test_published_scores_of_the_compared_networks_are_shown():
    carn_m = result("carn-m", set5={"psnr": 31.88, "ssim": 0.8910})
    assert "| set5 | carn-m ×4 | 1 | 31.880 | 31.92 | -0.04 | 0.8910 | 0.8903 | +0.0007 |" in markdown_table([carn_m])


def test_the_slides_have_their_own_columns(monkeypatch):
    """A sixth benchmark set can be added without scores in the slides."""
    monkeypatch.setitem(BENCHMARK_SETS, "div8k", BenchmarkSet("DIV8K", ("div8k",)))
    assert runpy.run_path(paper.__file__)["PUBLISHED"] == paper.PUBLISHED


def test_a_table_avoids_characters_that_the_stream_cannot_encode():
    measured = [result(set5={"psnr": 32.0591, "ssim": 0.89312})]
    utf8, latin1, ascii_only = (terminal_table(measured, encoding) for encoding in ("utf-8", "latin-1", "ascii"))
    assert (utf8.count("×"), utf8.count("Δ")) == (1, 2)
    assert latin1.encode("latin-1").count(b"\xd7") == 1  # Latin-1 has ×, but not Δ
    assert ascii_only.isascii()
    assert ascii_only.splitlines()[0] == "dataset  model      images  PSNR/dB  paper   diff    SSIM   paper     diff"
    assert ascii_only.splitlines()[2] == "set5     a2f-sd x4       1   32.059  32.06  +0.00  0.8931  0.8928  +0.0003"


def test_scores_of_compressed_lr_are_not_compared_with_the_published_ones():
    scores = {"psnr": 27.0, "ssim": 0.75}
    compressed = {**result(set5=scores), "jpeg": 60}
    assert terminal_table([compressed]).splitlines()[::2] == [
        "dataset  LR       model      images  PSNR/dB    SSIM",
        "set5     JPEG 60  a2f-sd ×4       1   27.000  0.7500",
    ]


def test_empty_columns_are_omitted():
    heading = terminal_table([result(scale=3, set5={"psnr": 34.0, "ssim": 0.9})]).splitlines()[0]
    assert heading.split() == ["dataset", "model", "images", "PSNR/dB", "SSIM"]


def test_files_contain_the_result_and_its_table(tmp_path):
    measured = result(set5={"psnr": 32.0641, "ssim": 0.89312})
    folder = tmp_path / "new" / "folder"
    write_results([measured], folder)
    assert json.loads((folder / "results.json").read_text()) == [measured]
    assert markdown_table([measured]) in (folder / "results.md").read_text()
    assert sorted(path.name for path in folder.iterdir()) == ["results.json", "results.md"]


def test_only_the_columns_of_the_table_are_explained(tmp_path):
    scores = {"psnr": 30.0, "ssim": 0.9}
    for number, (measured, explained) in enumerate(
        [
            (result(scale=3, sample=scores), set()),
            (result(set5=scores), {"paper"}),
            (result(sample={**scores, "lpips": 0.2}), {"LPIPS"}),
            ({**result(set5=scores), "jpeg": 60}, {"JPEG Q"}),
        ]
    ):
        write_results([measured], tmp_path / str(number))
        notes = (tmp_path / str(number) / "results.md").read_text().splitlines()[-1]
        assert notes.startswith("PSNR and SSIM are computed on the Y channel")
        assert {word for word in ("paper", "LPIPS", "JPEG Q") if word in notes} == explained


def test_infinite_psnr_is_null_in_json(tmp_path):
    write_results([result(set5={"psnr": math.inf, "ssim": 1.0})], tmp_path)
    (written,) = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert written["datasets"]["set5"]["psnr"] is None
    assert written["datasets"]["set5"]["images"]["img"] == {"psnr": None, "ssim": 1.0}


def test_error_names_the_file_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file/results\.json: File exists"):
        write_results([result(set5={"psnr": 30.0, "ssim": 0.9})], tmp_path / "file")


def test_results_of_files_whose_names_are_not_valid_text_are_written(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    scores = {"psnr": 30.0, "ssim": 0.9}
    found = result(photos=scores)
    found["datasets"]["photos"]["images"] = {name: scores}
    write_results([found], tmp_path)
    (written,) = json.loads((tmp_path / "results.json").read_text())
    assert written["datasets"]["photos"]["images"] == {name: scores}


def test_a_bar_in_the_name_of_a_folder_does_not_end_a_cell():
    result = {"model": "bicubic", "scale": 4, "weights": None, "datasets": {"./a|b": {"n": 1, "psnr": 30.0}}}
    assert r"| ./a\|b |" in markdown_table([result])
