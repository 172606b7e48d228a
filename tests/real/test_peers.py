"""The compared networks with their published weights, against what the original code gives."""

import functools

import jax
import numpy as np
import pytest

from a2f_jax import load
from a2f_jax.evaluation.benchmark import evaluate
from a2f_jax.models.registry import PEERS, params_from_source
from a2f_jax.weights.torch_file import read_state_dict

GOLDEN = [
    *("srcnn_x4", "fsrcnn_x4", "vdsr_x4", "drrn_x2", "lapsrn_x2", "lapsrn_x4", "idn_x4", "carn_x2", "carn-m_x4"),
    *("imdn_x4", "falsr-a_x2", "falsr-b_x2", "falsr-c_x2", "pan_x2", "pan_x4", "rlfn_x4", "bsrn_x4"),
]


@pytest.fixture(scope="session")
def tensors(shared):
    """Returns `tensors(name, scale)`: the published file that serves a scale, each read once."""

    @functools.cache
    def read(file):
        return dict(np.load(file)) if file.suffix == ".npz" else read_state_dict(file)

    def find(name, scale):
        folder = shared / "checkpoints/peers"
        names = [f"{stem}{suffix}" for stem in (f"{name}_x{scale}", name) for suffix in (".npz", ".pth")]
        return read(next(folder / n for n in names if (folder / n).exists()))

    return find


@pytest.mark.parametrize("case", GOLDEN)
def test_published_weights_give_the_originals_output(shared, tensors, case):
    name, _, scale = case.rpartition("_x")
    found, found_scale, params = params_from_source(tensors(name, int(scale)), int(scale))
    assert (found, found_scale) == (name, int(scale))
    golden = np.load(shared / f"golden/peers/{case}.npz")
    network = PEERS[name].make(int(scale))
    sr = jax.jit(network.apply)({"params": params}, golden["lr"][None].astype(np.float32))[0]
    if name.startswith("falsr"):
        sr = np.clip(sr, 0, 255)  # which their graph does itself
    # In float64, VDSR ×4 is 1.2e-3 from the golden output itself: twenty layers in float32 on numbers near 1.
    np.testing.assert_allclose(sr, golden["sr"], rtol=0, atol=2e-3 if case == "vdsr_x4" else 1e-3)


def test_files_that_serve_several_scales_ask_for_one(tensors):
    with pytest.raises(ValueError, match="VDSR do not tell their scale: pass one of 2, 3, 4"):
        params_from_source(tensors("vdsr", 2))
    with pytest.raises(ValueError, match="IMDN are for ×2, not for ×3"):
        params_from_source(tensors("imdn", 2), 3)


# As measured with the original code on the same images.
@pytest.mark.parametrize(("file", "psnr", "ssim"), [("carn-m.pth", 31.88, 0.8910), ("fsrcnn_x4.pth", 30.52, 0.8599)])
def test_published_weights_give_the_originals_scores_on_set5(shared, file, psnr, ssim):
    model = load(shared / "checkpoints/peers" / file, scale=4)
    (result,) = evaluate(model, ["set5"], data_dir=shared / "data/SelfExSR", progress=False)
    assert result["psnr"] == pytest.approx(psnr, abs=0.005)  # the rounding of the reference
    assert result["ssim"] == pytest.approx(ssim, abs=5e-5)
