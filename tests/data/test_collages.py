import numpy as np
import pytest

from a2f_jax.data.collages import COLLAGE_SIDE, draw_collage, random_part


@pytest.fixture
def photograph():
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


def test_a_collage_depends_on_photographs_and_seed_only(photograph):
    first, again, other = (draw_collage([photograph], np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (COLLAGE_SIDE, COLLAGE_SIDE, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert np.mean(first != other) > 0.9


def test_a_collage_of_one_color_is_of_one_color():
    # Nothing in it is darker or lighter than the photographs: no shape has an outline, and nothing overshoots.
    collage = draw_collage([np.full((40, 30, 3), (200, 10, 90), np.uint8)], np.random.default_rng(0))
    np.testing.assert_array_equal(collage, np.broadcast_to(np.uint8([200, 10, 90]), collage.shape))


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 500, 3), (3, 5, 3)])
def test_photographs_may_be_tiny(shape):
    assert draw_collage([np.zeros(shape, np.uint8)], np.random.default_rng(0)).max() == 0


def test_a_collage_has_sharp_edges_and_flat_areas():
    # Of two smooth photographs, which have none of either.
    y, x = np.mgrid[:512, :512]
    smooth = np.uint8(np.stack([x / 2, y / 2, 255 - x / 2], -1))
    collage = np.int16(draw_collage([smooth, smooth[::-1]], np.random.default_rng(0)))
    steps = np.abs(np.diff(collage[..., 0], axis=1))
    assert np.abs(np.diff(np.int16(smooth[..., 0]), axis=1)).max() <= 1
    assert np.mean(steps > 32) > 0.01
    assert np.mean(steps == 0) > 0.2


def test_a_part_is_at_most_as_large_as_a_collage_and_anywhere():
    photograph = np.arange(3000 * 20, dtype=np.uint32).view(np.uint8).reshape(3000, 20, 4)[..., :3]
    rng = np.random.default_rng(0)
    tops = set()
    for _ in range(20):
        part = random_part(photograph, rng)
        assert part.shape == (COLLAGE_SIDE, 20, 3)
        first = int.from_bytes(part[0, 0].tobytes(), "little")
        assert first % 20 == 0
        tops.add(first // 20)
        np.testing.assert_array_equal(part, photograph[first // 20 :][:COLLAGE_SIDE])
    assert len(tops) > 10
    assert 0 <= min(tops) < 600
    assert 1400 < max(tops) <= 3000 - COLLAGE_SIDE
