"""Training patches cropped on the device, inside the jitted step; the host only supplies the step number.

The decoded images are kept in device memory in the layout of the cache, as chunks of 128 bytes. Chunk indices fit in
int32, whereas byte offsets would not: the HR images of DIV2K take 6.8 GB.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from a2f_jax.data.cache import CHUNK, Cache, row_chunks
from a2f_jax.data.patches import PERMUTATIONS, choose, choose_permutations, cumulative_shares, degradation_keys


class DeviceImages(NamedTuple):
    """Decoded images in device memory, as a pytree.

    Attributes:
      sizes: int32 `[images, 2]`, LR height and width in pixels.
      lr: uint8 `[chunks, 128]`.
      hr: uint8 `[chunks, 128]`.
      lr_start: int32 `[images]`, the first chunk of each image in `lr`.
      hr_start: int32 `[images]`, the first chunk of each image in `hr`.
      shares: uint32 `[images]`, how likely each image is, as `cumulative_shares` returns it, or None.
    """

    sizes: Any
    lr: Any
    hr: Any
    lr_start: Any
    hr_start: Any
    shares: Any = None


def device_images(cache: Cache, *, crop_size: int, by_area: bool = False) -> DeviceImages:
    """Returns a cache's arrays for `jax.device_put`; they are still in host memory.

    Args:
      cache: the decoded images.
      crop_size: the side of the area that is cropped, in LR pixels, as in `Patches`.
      by_area: whether every patch of every image is equally likely, instead of every image.
    """
    shares = cumulative_shares(cache.sizes, crop_size) if by_area else None
    return DeviceImages(cache.sizes, cache.lr, cache.hr, cache.lr_start, cache.hr_start, shares)


def chunk_places(start: jax.Array, per_row: jax.Array, top: jax.Array, left: jax.Array, size: int) -> jax.Array:
    """Returns the chunks that patches are stored in.

    Args:
      start: int32 `[B]`, the first chunk of the image that each patch is cropped from.
      per_row: int32 `[B]`, the number of chunks per row of that image.
      top: int32 `[B]`, the first row of the patch, in pixels.
      left: int32 `[B]`, the first column of the patch, in pixels.
      size: the side of the square patches, in pixels.

    Returns:
      int32 `[B, size, chunks]`, chunk indices. Each row of a patch starts in the first chunk and ends in the last or
      the second to last.
    """
    rows = top[:, None] + jnp.arange(size, dtype=jnp.int32)[None, :]
    first = start[:, None] + rows * per_row[:, None] + (3 * left // CHUNK)[:, None]
    most = -(-(CHUNK - 1 + 3 * size) // CHUNK)
    return first[..., None] + jnp.arange(most, dtype=jnp.int32)[None, None, :]


def _cut(
    chunks: jax.Array, start: jax.Array, width: jax.Array, top: jax.Array, left: jax.Array, size: int
) -> jax.Array:
    places = chunk_places(start, row_chunks(width), top, left, size)
    # The last image has no following chunk. Bytes read from there are cropped below, so clipping is safe.
    rows = chunks.at[places].get(mode="clip").reshape(len(left), size, -1)
    cut = jax.vmap(lambda x, first: jax.lax.dynamic_slice_in_dim(x, first, 3 * size, axis=1))(rows, 3 * left % CHUNK)
    return cut.reshape(-1, size, size, 3)


def _orient(patches: jax.Array, orientation: jax.Array) -> jax.Array:
    bits = orientation[:, None, None, None]
    patches = jnp.where(bits & 1, patches[:, :, ::-1], patches)
    patches = jnp.where(bits & 2, patches[:, ::-1], patches)
    return jnp.where(bits & 4, patches.swapaxes(1, 2), patches)


def device_batch(
    images: DeviceImages,
    *,
    seed: int,
    step: jax.Array,
    rows: jax.Array,
    scale: int,
    patch_size: int,
    source_size: int | None = None,
    permute_channels: bool = False,
) -> dict[str, jax.Array]:
    """Crops a batch on the device; the result is bit-identical to `Patches.batch` on the host.

    Args:
      images: the decoded images, on the device.
      seed: the seed for the choice of patches.
      step: the training step, an integer scalar; may be traced.
      rows: uint32 `[b]`, positions in the global batch: `Patches.rows`, or the part of it that this device computes.
      scale: the scale of the images.
      patch_size: the side of the LR patches, in pixels.
      source_size: the side of the area to crop for the degradation of each patch, as in `Patches`.
      permute_channels: whether to permute the color channels at random, as in `Patches`.

    Returns:
      `{"lr": uint8 [b, p, p, 3], "hr": uint8 [b, s·p, s·p, 3]}`, where p is `patch_size` and s is `scale`; or with
      `source_size` S `{"hr": uint8 [b, s·S, s·S, 3], "key": uint32 [b, 2]}`.
    """
    size = source_size or patch_size
    place = jnp.uint32(seed % 2**32), jnp.uint32(step), jnp.uint32(rows)
    image, top, left, orientation = choose(*place, images.sizes, size, images.shares)
    width = images.sizes[image, 1]
    batch = {"hr": _cut(images.hr, images.hr_start[image], scale * width, scale * top, scale * left, scale * size)}
    if not source_size:
        batch["lr"] = _cut(images.lr, images.lr_start[image], width, top, left, size)
    batch = {key: _orient(patches, orientation) for key, patches in batch.items()}
    if permute_channels:
        permutations = jnp.asarray(PERMUTATIONS)[choose_permutations(*place)][:, None, None]
        batch = {key: jnp.take_along_axis(patches, permutations, axis=3) for key, patches in batch.items()}
    return batch | {"key": degradation_keys(*place)} if source_size else batch
