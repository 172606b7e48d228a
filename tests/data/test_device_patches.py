import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2f_jax.data import Patches
from a2f_jax.data.device_patches import chunk_places, device_batch, device_images


@pytest.mark.parametrize(("patch_size", "source_size"), [(1, None), (5, None), (16, None), (5, 16)])
@pytest.mark.parametrize(("seed", "augmented"), [(0, False), (-1, True)])
def test_patches_on_the_device_equal_those_on_the_host(cache, patch_size, source_size, seed, augmented):
    patches = Patches(
        cache,
        seed=seed,
        batch_size=8,
        patch_size=patch_size,
        source_size=source_size,
        by_area=augmented,
        permute_channels=augmented,
    )
    images = jax.device_put(device_images(cache, crop_size=patches.crop_size, by_area=augmented))
    crop = jax.jit(
        lambda images, step, rows: device_batch(
            images,
            seed=seed,
            step=step,
            rows=rows,
            scale=cache.scale,
            patch_size=patch_size,
            source_size=source_size,
            permute_channels=augmented,
        )
    )
    for step in [*range(40), 2**31 - 1]:
        on_device = crop(images, step, patches.rows)
        for key, on_host in patches.batch(step).items():
            np.testing.assert_array_equal(on_device[key], on_host)


def test_chunk_indices_are_exact_far_beyond_2_gib():
    # The last image of a 250 GB dataset, 16,000 pixels wide.
    start, per_row, top, left = 2**31 - 4_000_000, 375, 9_999, 15_000
    places = chunk_places(*(jnp.array([x], jnp.int32) for x in (start, per_row, top, left)), 192)
    assert places.dtype == jnp.int32
    for row in (0, 191):
        first_byte = (start + (top + row) * per_row) * 128 + 3 * left
        assert int(places[0, row, 0]) == first_byte // 128
        assert int(places[0, row, -1]) >= (first_byte + 3 * 192 - 1) // 128


def test_only_the_step_is_transferred_to_the_device(cache):
    images = jax.device_put(device_images(cache, crop_size=4, by_area=True))
    rows = jax.device_put(np.arange(8, dtype=np.uint32))
    options = {"seed": 0, "scale": 2, "patch_size": 4, "permute_channels": True}
    crop = jax.jit(lambda images, step, rows: device_batch(images, step=step, rows=rows, **options))
    step = jax.device_put(np.int32(3))
    crop(images, step, rows)
    with jax.transfer_guard("disallow"):
        crop(images, step, rows)
