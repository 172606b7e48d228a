"""The runs of the compared networks."""

import pytest

from a2f_jax.configs import peers


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("cran_m_x4", "did you mean carn_m_x4"),
        ("cran_m_x3", "did you mean carn_m_x3"),
        ("falsr_x_x4", "did you mean falsr_c_x2"),
        ("lapsrn_x3", "LapSRN upscales by 2 or 4"),
        ("zzz_x4", "use NAME_xSCALE with a name that a2f models lists"),
        ("vdsr", "use NAME_xSCALE"),
    ],
)
def test_a_run_that_does_not_exist_is_refused_with_the_remedy(run, message):
    with pytest.raises(ValueError, match=message):
        peers.get_config(run)
