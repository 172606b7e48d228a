"""Multi-adds compared with an explicit formula and with the paper."""

import pytest

from a2f_jax.models.a2f import VARIANTS, build
from a2f_jax.models.color import LumaNetwork, bicubic
from a2f_jax.models.counts import count, overview


def by_hand(features, blocks, scale):
    """Returns the multiplications of all layers per LR pixel, and those of the attention per image."""
    n = features
    convolutions = 27 * n + 9 * (n + 3) * 3 * scale**2 + blocks * 2 * 9 * n * 128
    projections = sum(n * (i + 1) * n for i in range(blocks))
    return convolutions + projections, blocks * 2 * n * n


@pytest.mark.parametrize(("variant", "scale"), [("a2f-sd", 4), ("a2f-s", 2)])
def test_multiply_adds_are_those_of_the_layers(variant, scale):
    size = VARIANTS[variant]
    per_pixel, once = by_hand(size.features, size.blocks, scale)
    pixels = (720 // scale) * (1280 // scale)
    assert count(build(variant, scale)).multiply_adds == per_pixel * pixels + once


# From the paper's tables, in units of 1e9. The authors also count elementwise operations, up to 1.5%.
@pytest.mark.parametrize(
    ("variant", "scale", "billions"), [("a2f-sd", 4, 18.2), ("a2f-s", 4, 18.6), ("a2f-sd", 2, 71.2)]
)
def test_multiply_adds_are_close_to_the_papers(variant, scale, billions):
    assert count(build(variant, scale)).multiply_adds / 1e9 == pytest.approx(billions, rel=0.015)


def test_tables_name_every_variant_and_scale(monkeypatch):
    monkeypatch.setattr("a2f_jax.models.counts.count", lambda _: (123456, 7.8e9))
    lines = overview().splitlines()
    assert len(lines) == 1 + len(VARIANTS) * 3 + 1
    assert "a2f-m" in lines[7]
    assert "×2" in lines[7]
    assert "123,456       7.8 G" in lines[7]


class Bicubic(LumaNetwork):
    """Gives the bicubic interpolation of Y."""

    def luma(self, y):
        return bicubic(y, self.scale)


def test_interpolation_is_not_counted_as_in_papers():
    # Only the products with the 3×3 matrices of the two changes of color, of LR and of SR pixels.
    assert count(Bicubic(2), output=(20, 30)).multiply_adds == 9 * (10 * 15 + 20 * 30)
