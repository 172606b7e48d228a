import itertools
import threading

import numpy as np
import pytest

from a2f_jax.data import Patches
from a2f_jax.data.patches import choose, choose_permutations, cumulative_shares
from a2f_jax.errors import UserError

DIHEDRAL = [lambda x, k=k: np.rot90(x, k) if k < 4 else np.rot90(x, k).swapaxes(0, 1) for k in range(8)]


@pytest.fixture
def patches(cache):
    return Patches(cache, seed=1, batch_size=8, patch_size=16)


def test_the_cache_returns_the_images(cache, images):
    for i, pair in enumerate(images):
        for mapped, image in zip(cache.pair(i), pair, strict=True):
            np.testing.assert_array_equal(mapped, image)


def test_patches_are_crops_in_one_of_eight_orientations_the_same_for_lr_and_hr(patches, images):
    seen = set()
    for step in range(40):
        batch = patches.batch(step)
        for row, (image, top, left, _) in enumerate(zip(*patches.choice(step), strict=True)):
            lr = images[image][0][top : top + 16, left : left + 16]
            hr = images[image][1][2 * top : 2 * top + 32, 2 * left : 2 * left + 32]
            fitting = [
                k
                for k, turn in enumerate(DIHEDRAL)
                if np.array_equal(turn(lr), batch["lr"][row]) and np.array_equal(turn(hr), batch["hr"][row])
            ]
            assert len(fitting) == 1
            seen.update(fitting)
    assert seen == set(range(8))


def _chi_square(values, count):
    expected = len(values) / count
    return ((np.bincount(values, minlength=count) - expected) ** 2 / expected).sum()


# Seeds and steps that differ in a single bit must give unrelated numbers. The bounds are the 99.99% quantiles of χ².
@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1])
def test_images_corners_and_orientations_are_uniformly_distributed(seed):
    sizes = np.array([[26, 40]] * 10, np.int32)
    rows = np.arange(16, dtype=np.uint32)
    with np.errstate(over="ignore"):
        drawn = [choose(np.uint32(seed), np.uint32(step), rows, sizes, 16) for step in range(2000)]
    image, top, left, orientation = (np.concatenate(x) for x in zip(*drawn, strict=True))
    assert _chi_square(image, 10) < 33.7
    assert _chi_square(top, 11) < 35.6
    assert _chi_square(left, 25) < 58.6
    assert _chi_square(orientation, 8) < 29.9
    assert _chi_square(image * 8 + orientation, 80) < 133.5
    assert _chi_square(top * 25 + left, 275) < 371.3


def test_every_patch_of_every_image_is_equally_likely_by_area():
    sizes = np.array([[16, 17], [40, 16], [16, 16], [30, 31]], np.int32)
    patches = [2, 25, 1, 15 * 16]
    shares = cumulative_shares(sizes, 16)
    np.testing.assert_allclose(np.diff(shares, prepend=0) / 2**32, np.divide(patches, sum(patches)), atol=1e-9)
    rows = np.arange(16, dtype=np.uint32)
    with np.errstate(over="ignore"):
        drawn = [choose(np.uint32(3), np.uint32(step), rows, sizes, 16, shares) for step in range(4000)]
    image, top, left, _ = (np.concatenate(x) for x in zip(*drawn, strict=True))
    starts = np.cumsum([0, *patches[:-1]])
    corner = starts[image] + top * (sizes[image, 1] - 15) + left
    assert _chi_square(corner, sum(patches)) < 361.6  # the 99.99% quantile of 267 degrees of freedom


def test_the_shares_reach_every_random_number():
    shares = cumulative_shares(np.array([[5, 5], [2**15, 2**15], [5, 6]], np.int32), 5)
    assert shares[-1] == 2**32 - 1
    assert shares.searchsorted(np.uint32(2**32 - 1)) == 2
    assert shares.searchsorted(np.uint32(0)) == 0
    # An image whose share is less than 2⁻³².
    assert cumulative_shares(np.array([[48, 48]] + [[1500, 1500]] * 2100, np.int32), 48)[0] == 0


def test_permuted_patches_have_the_same_order_of_channels_in_lr_and_hr(cache, patches):
    permuted = Patches(cache, seed=1, batch_size=8, patch_size=16, permute_channels=True)
    seen = set()
    for step in range(40):
        plain, changed = patches.batch(step), permuted.batch(step)
        for row in range(8):
            fitting = [
                order
                for order in itertools.permutations(range(3))
                if all(np.array_equal(plain[key][row][..., order], changed[key][row]) for key in ("lr", "hr"))
            ]
            assert len(fitting) == 1
            seen.update(fitting)
    assert len(seen) == 6


def test_orders_of_channels_are_uniformly_distributed_and_independent_of_the_orientation():
    sizes, rows = np.array([[26, 40]], np.int32), np.arange(16, dtype=np.uint32)
    with np.errstate(over="ignore"):
        permutation = [choose_permutations(np.uint32(5), np.uint32(step), rows) for step in range(2000)]
        orientation = [choose(np.uint32(5), np.uint32(step), rows, sizes, 16)[3] for step in range(2000)]
    assert _chi_square(np.concatenate(orientation) * 6 + np.concatenate(permutation), 48) < 91.8  # the 99.99% quantile


def test_a_batch_depends_on_the_seed_and_the_step_alone(cache, patches):
    again = Patches(cache, seed=1, batch_size=8, patch_size=16)
    np.testing.assert_array_equal(again.batch(5)["hr"], patches.batch(5)["hr"])
    assert (patches.batch(6)["hr"] != patches.batch(5)["hr"]).any()
    other_seed = Patches(cache, seed=2, batch_size=8, patch_size=16)
    assert (other_seed.batch(5)["hr"] != patches.batch(5)["hr"]).any()


@pytest.mark.parametrize("source_size", [None, 16])
@pytest.mark.parametrize("count", [2, 4])
def test_the_shares_of_several_processes_make_up_the_batch_of_one(cache, count, source_size):
    options = {"seed": 1, "batch_size": 8, "patch_size": 10, "source_size": source_size}
    shares = [Patches(cache, **options, process_index=i, process_count=count).batch(3) for i in range(count)]
    for key, whole in Patches(cache, **options).batch(3).items():
        np.testing.assert_array_equal(np.concatenate([share[key] for share in shares]), whole)


def test_patches_to_degrade_are_larger_crops_of_hr_with_a_key_each(cache, patches):
    degraded = Patches(cache, seed=1, batch_size=8, patch_size=5, source_size=16)
    keys = []
    for step in range(40):
        batch = degraded.batch(step)
        np.testing.assert_array_equal(batch["hr"], patches.batch(step)["hr"])  # of patches of the larger size
        keys.extend(batch["key"])
    assert np.shape(keys) == (320, 2)
    assert len({*map(tuple, keys)}) == 320
    with pytest.raises(UserError, match=r"patch_size=5 requires 17×17 LR pixels to degrade, .* a, has 16×16"):
        Patches(cache, seed=1, batch_size=8, patch_size=5, source_size=17)


def test_prefetching_starts_at_any_step_and_keeps_the_order(patches):
    batches = patches.prefetch(7)
    for step in range(7, 15):
        np.testing.assert_array_equal(next(batches)["lr"], patches.batch(step)["lr"])
    assert "patches" in (thread.name for thread in threading.enumerate())
    batches.close()
    assert "patches" not in (thread.name for thread in threading.enumerate())


def test_prefetching_raises_errors_in_the_consumer(patches, monkeypatch):
    whole = patches.batch

    def failing(step):
        if step == 2:
            raise OSError("the disk is gone")
        return whole(step)

    monkeypatch.setattr(patches, "batch", failing)
    batches = patches.prefetch(0)
    next(batches)
    next(batches)
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)


def test_patches_larger_than_an_image_are_refused(cache):
    with pytest.raises(
        UserError, match=r"patch_size=17 is larger than the smallest LR image, a with 16×16 pixels: use at most 16"
    ):
        Patches(cache, seed=0, batch_size=8, patch_size=17)


@pytest.mark.parametrize("kind", [np.uint32, np.int8])
def test_the_seed_may_be_of_any_integer_type(cache, patches, kind):
    others = Patches(cache, seed=kind(1), batch_size=8, patch_size=16)
    np.testing.assert_array_equal(others.batch(3)["hr"], patches.batch(3)["hr"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seed": 1.5}, TypeError, "float"),
        ({"batch_size": 0}, ValueError, "batch_size is 0, but must be positive"),
        ({"patch_size": -3}, ValueError, "patch_size is -3"),
        ({"process_count": 0}, ValueError, "process_count is 0"),
        ({"process_index": 5}, ValueError, "process_index is 5, but there are 1 processes"),
    ],
)
def test_values_that_would_crop_nothing_are_refused(cache, options, error, message):
    with pytest.raises(error, match=message):
        Patches(cache, **{"seed": 1, "batch_size": 8, "patch_size": 16, **options})


def test_batches_that_cannot_be_divided_evenly_are_refused(cache):
    with pytest.raises(UserError, match=r"batch_size=8 cannot be divided evenly among 3 processes"):
        Patches(cache, seed=0, batch_size=8, patch_size=16, process_count=3)
