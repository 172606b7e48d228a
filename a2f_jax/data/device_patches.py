"""Training patches cut on the device, inside the jitted step: the host only says which step it is.

The decoded images lie in the device's memory as in the cache, in chunks of 128 bytes, since what counts chunks fits
in int32 where what counts bytes would not (the HR images of DIV2K are 6.8 GB).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from a2f_jax.data.cache import CHUNK, Cache, row_chunks
from a2f_jax.data.patches import choose


class DeviceImages(NamedTuple):
    """Decoded images in the memory of a device, a pytree; the fields are those of `Cache`."""

    sizes: Any
    lr: Any
    hr: Any
    lr_start: Any
    hr_start: Any


def device_images(cache: Cache) -> DeviceImages:
    """Returns what of a cache has to be on the device, still in the memory of the host: `jax.device_put` moves it."""
    return DeviceImages(cache.sizes, cache.lr, cache.hr, cache.lr_start, cache.hr_start)


def chunk_places(start: jax.Array, per_row: jax.Array, top: jax.Array, left: jax.Array, size: int) -> jax.Array:
    """Says in which chunks patches lie.

    Args:
      start: int32 `[B]`, the first chunk of the patch's image.
      per_row: int32 `[B]`, chunks of a row of that image.
      top: int32 `[B]`, the patch's first row in pixels.
      left: int32 `[B]`, its first column.
      size: its side.

    Returns:
      int32 `[B, size, chunks]`; the patch begins in the first of a row's chunks and ends in the last or the one
      before.
    """
    rows = top[:, None] + jnp.arange(size, dtype=jnp.int32)
    first = start[:, None] + rows * per_row[:, None] + (3 * left // CHUNK)[:, None]
    most = -(-(CHUNK - 1 + 3 * size) // CHUNK)
    return first[..., None] + jnp.arange(most, dtype=jnp.int32)


def _cut(
    chunks: jax.Array, start: jax.Array, width: jax.Array, top: jax.Array, left: jax.Array, size: int
) -> jax.Array:
    places = chunk_places(start, row_chunks(width), top, left, size)
    # Behind the last image there is no next chunk; what would be read from it is cut off below.
    rows = chunks.at[places].get(mode="clip").reshape(len(left), size, -1)
    cut = jax.vmap(lambda x, first: jax.lax.dynamic_slice_in_dim(x, first, 3 * size, axis=1))(rows, 3 * left % CHUNK)
    return cut.reshape(-1, size, size, 3)


def _orient(patches: jax.Array, orientation: jax.Array) -> jax.Array:
    bits = orientation[:, None, None, None]
    patches = jnp.where(bits & 1, patches[:, :, ::-1], patches)
    patches = jnp.where(bits & 2, patches[:, ::-1], patches)
    return jnp.where(bits & 4, patches.swapaxes(1, 2), patches)


def device_batch(
    images: DeviceImages, *, seed: int, step: jax.Array, rows: jax.Array, scale: int, patch_size: int
) -> dict[str, jax.Array]:
    """Cuts patches on the device: bit for bit what `Patches.batch` cuts on the host.

    Args:
      images: on the device.
      seed: of the choice of patches.
      step: integer scalar, may be traced.
      rows: uint32 `[b]`, the patches' places in the whole batch: `Patches.rows`, or a device's share of them.
      scale: of the images.
      patch_size: side of the LR patch.

    Returns:
      `{"lr": uint8 [b, p, p, 3], "hr": uint8 [b, s·p, s·p, 3]}`.
    """
    image, top, left, orientation = choose(
        jnp.uint32(seed % 2**32), jnp.uint32(step), jnp.uint32(rows), images.sizes, patch_size
    )
    width = images.sizes[image, 1]
    lr = _cut(images.lr, images.lr_start[image], width, top, left, patch_size)
    hr = _cut(images.hr, images.hr_start[image], scale * width, scale * top, scale * left, scale * patch_size)
    return {"lr": _orient(lr, orientation), "hr": _orient(hr, orientation)}
