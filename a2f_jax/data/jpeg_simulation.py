"""What saving an image as JPEG and reading it again does to its pixels, in JAX.

The steps and their rounding are those of libjpeg, the decoder and encoder of most software: its pixels and these
differ only where the discrete cosine transform, which libjpeg computes in integers, rounds differently. No bits are
written, because the entropy coding is lossless.
"""

import jax
import jax.numpy as jnp
import numpy as np

_BLOCK = 8

MCU = 16
"""Side in pixels of the unit that 4:2:0 compresses, 8×8 samples of chroma. The grid starts at the top left corner."""

# Tables K.1 and K.2 of ITU-T T.81.
_LUMA_TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.int32,
)
_CHROMA_TABLE = np.full((_BLOCK, _BLOCK), 99, np.int32)
_CHROMA_TABLE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]


def quantization_tables(quality: jax.Array) -> jax.Array:
    """Returns the quantization tables of luma and chroma that libjpeg uses at a quality.

    They are tables K.1 and K.2 of ITU-T T.81 multiplied by 50 / quality below 50, and by 2 − quality / 50 from there,
    rounded and limited to 1..255.

    Args:
      quality: integer scalar, 1..100; may be traced.

    Returns:
      int32 `[2, 8, 8]`, luma and chroma; rows are vertical frequencies.
    """
    quality = jnp.asarray(quality, jnp.int32)
    percent = jnp.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return ((jnp.stack([_LUMA_TABLE, _CHROMA_TABLE]) * percent + 50) // 100).clip(1, 255)


def _cosines() -> np.ndarray:
    """The orthonormal DCT-II as a matrix, `[frequency, sample]`: equation A.3.3 of ITU-T T.81 for one axis."""
    frequency, sample = np.mgrid[:_BLOCK, :_BLOCK]
    matrix = np.cos((2 * sample + 1) * frequency * np.pi / (2 * _BLOCK)) / 2
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)


def _round(x: jax.Array) -> jax.Array:
    return jnp.sign(x) * jnp.floor(jnp.abs(x) + 0.5)  # half away from zero, as libjpeg


def _pad(plane: jax.Array, multiple: int) -> jax.Array:
    return jnp.pad(plane, [(0, -side % multiple) for side in plane.shape], mode="edge")


def _compress(plane: jax.Array, table: jax.Array) -> jax.Array:
    """Quantizes the DCT of each 8×8 block of a plane, `[H, W]` in 0..255, and transforms back."""
    height, width = plane.shape
    padded = _pad(plane, _BLOCK)
    rows, columns = (side // _BLOCK for side in padded.shape)
    # A block is a row of 64 numbers, so that both transforms are products with one 64×64 matrix.
    transform = np.kron(_cosines(), _cosines())
    blocks = padded.reshape(rows, _BLOCK, columns, _BLOCK).swapaxes(1, 2).reshape(-1, _BLOCK**2) - 128
    steps = table.reshape(-1).astype(jnp.float32)
    # libjpeg keeps three fractional bits between the transform and the quantization, which decides ties.
    coefficients = _round(8 * jnp.matmul(blocks, transform.T, precision="highest"))
    levels = _round(coefficients / (8 * steps))
    blocks = jnp.matmul(levels * steps, transform, precision="highest")
    restored = blocks.reshape(rows, columns, _BLOCK, _BLOCK).swapaxes(1, 2).reshape(padded.shape)
    return jnp.floor(restored + 128.5).clip(0, 255)[:height, :width]


def _halve(plane: jax.Array) -> jax.Array:
    """Averages 2×2 samples; libjpeg rounds one half down in even columns and up in odd ones."""
    padded = _pad(plane, 2)
    height, width = (side // 2 for side in padded.shape)
    sums = padded.reshape(height, 2, width, 2).sum((1, 3))
    return jnp.floor((sums + 1 + jnp.arange(width) % 2) / 4)


def _double(plane: jax.Array) -> jax.Array:
    """Interpolates with weights 3/4 and 1/4 in both directions: libjpeg's "fancy upsampling"."""
    above, below = (jnp.pad(plane, edges, mode="edge")[cut] for edges, cut in _NEIGHBORS)
    rows = jnp.stack([3 * plane + above, 3 * plane + below], 1).reshape(-1, plane.shape[1])
    left, right = (jnp.pad(rows.T, edges, mode="edge")[cut].T for edges, cut in _NEIGHBORS)
    # The sums are sixteenfold; rounding alternates here too.
    columns = jnp.stack([jnp.floor((3 * rows + left + 8) / 16), jnp.floor((3 * rows + right + 7) / 16)], 2)
    return columns.reshape(len(rows), -1)


_NEIGHBORS = ((((1, 0), (0, 0)), slice(None, -1)), (((0, 1), (0, 0)), slice(1, None)))


def jpeg(image: jax.Array, quality: jax.Array, subsampling: jax.Array) -> jax.Array:
    """Returns an image as it is after it has been saved as JPEG and read again.

    RGB is converted to YCbCr as JFIF defines it; chroma is averaged to half the resolution if required; the DCT of each
    8×8 block is quantized by `quantization_tables`, and all steps are inverted. Sides that are not multiples of the
    block are extended by repeating the last pixel, as libjpeg does.

    Args:
      image: float32 RGB `[H, W, 3]`, whole numbers in 0..255.
      quality: integer scalar, 1..100; may be traced.
      subsampling: boolean scalar, True for 4:2:0 and False for 4:4:4; may be traced.

    Returns:
      float32 RGB `[H, W, 3]`, whole numbers in 0..255.
    """
    height, width = image.shape[:2]
    luma_table, chroma_table = quantization_tables(quality)
    red, green, blue = jnp.moveaxis(image, -1, 0)
    # The coefficients of JFIF 1.02; chroma is rounded half down, as in libjpeg.
    y = jnp.floor(0.299 * red + 0.587 * green + 0.114 * blue + 0.5)
    y = _compress(y, luma_table)
    chroma = []
    for weights in ((-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411)):
        plane = weights[0] * red + weights[1] * green + weights[2] * blue
        plane = jnp.ceil(plane + 127.5).clip(0, 255)
        full = _compress(plane, chroma_table)
        half = _double(_compress(_halve(plane), chroma_table))[:height, :width]
        chroma.append(jnp.where(subsampling, half, full) - 128)
    cb, cr = chroma
    rgb = [y + 1.402 * cr, y - 0.344136286 * cb - 0.714136286 * cr, y + 1.772 * cb]
    return jnp.floor(jnp.stack(rgb, -1) + 0.5).clip(0, 255)
