"""The inputs of the training step."""

import itertools
import types

import jax
import numpy as np
import pytest

from a2f_jax.data import prepare
from a2f_jax.errors import UserError
from a2f_jax.images import write_rgb
from a2f_jax.training.inputs import dispatch_inputs, dispatch_sizes, open_training_data, resident_images
from a2f_jax.training.validation import digest_of


def test_a_run_of_any_length_starts_without_listing_its_dispatches(config):
    config.steps = 2**31 - 1
    # A resident stands for images in device memory; only whether there is one matters here.
    inputs = dispatch_inputs(None, object(), 0, dispatch_sizes(config, 0))
    assert [len(steps) for steps in itertools.islice(inputs, 3)] == list(itertools.islice(dispatch_sizes(config, 0), 3))


@pytest.mark.parametrize("changes", [{}, {"data.sampling": "area"}, {"data.permute_channels": True}], ids=str)
def test_devices_that_hold_the_images_crop_the_patches_of_the_host(config, changes):
    plain = open_training_data(config, 2)[0].batch(3)
    config.update_from_flattened_dict({**changes, "data.placement": "device"})
    patches, _ = open_training_data(config, 2)
    resident = resident_images(config, patches.cache)
    on_device = jax.jit(resident.crop)(jax.device_put(resident.images), 3, patches.rows)
    on_host = patches.batch(3)
    for key, images in on_host.items():
        np.testing.assert_array_equal(on_device[key], images)
    assert np.array_equal(on_host["hr"], plain["hr"]) == (not changes)


def test_a_held_out_image_that_is_too_small_to_be_measured_is_refused_before_the_run(config, tmp_path):
    photographs = np.random.default_rng(0).integers(0, 256, (6, 14, 14, 3), np.uint8)
    for i, photograph in enumerate(photographs):
        write_rgb(tmp_path / f"photos/{i}.png", photograph)
    prepare("photos", scale=2, data_dir=str(tmp_path / "data"), source=tmp_path / "photos", validation=2, min_size=4)
    config.data.name, config.data.dir, config.data.patch_size = "photos", str(tmp_path / "data"), 4
    with pytest.raises(UserError, match=r"validation split of photos, image \d.png: the image of 14×14 is too small"):
        open_training_data(config, 2)


def test_batches_that_do_not_fit_in_memory_are_refused_with_the_settings_to_reduce():
    def prefetch(step):
        raise MemoryError
        yield

    patches = types.SimpleNamespace(rows=range(10**9), prefetch=prefetch)
    with pytest.raises(UserError, match=r"1000000000 patches do not fit in memory: reduce config\.batch_size"):
        next(dispatch_inputs(patches, None, 0, [1]))


def test_the_digest_of_validation_images_depends_on_every_pixel_but_not_on_their_order():
    rng = np.random.default_rng(0)
    images = [tuple(rng.integers(0, 256, (f * 4, f * 5, 3), dtype=np.uint8) for f in (1, 2)) for _ in range(3)]
    assert digest_of(images) == digest_of(images[::-1]) != digest_of(images[:2])
    for changed in range(2):
        other = [tuple(image.copy() for image in pair) for pair in images]
        other[1][changed][2, 3, 1] ^= 1
        assert digest_of(other) != digest_of(images)
