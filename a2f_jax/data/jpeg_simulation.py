"""What saving an image as JPEG and reading it again does to its pixels, in JAX.

The steps are those of libjpeg, with its integer arithmetic: the pixels equal those of libjpeg-turbo, which Pillow and
most other software use, bit for bit. No file is written, because the entropy coding is lossless.
"""

import jax
import jax.numpy as jnp
import numpy as np

from a2f_jax.images.jpeg_quality import LUMA_TABLE, scaled_table

_BLOCK = 8

MCU = 16
"""Side in pixels of the unit that 4:2:0 compresses, 8×8 samples of chroma. The grid starts at the top left corner."""

# Table K.2 of ITU-T T.81.
_CHROMA_TABLE = np.full((_BLOCK, _BLOCK), 99, np.int32)
_CHROMA_TABLE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]


def quantization_tables(quality: jax.Array) -> jax.Array:
    """Returns the quantization tables of luma and chroma that libjpeg uses at a quality.

    They are tables K.1 and K.2 of ITU-T T.81, scaled by `scaled_table`.

    Args:
      quality: integer scalar, 1..100; may be traced.

    Returns:
      int32 `[2, 8, 8]`, luma and chroma; rows are vertical frequencies.
    """
    return scaled_table(jnp.stack([LUMA_TABLE, _CHROMA_TABLE]), jnp.asarray(quality, jnp.int32), jnp)


# The DCT-II times 2¹³ √8 for one axis, [frequency, sample]: 2¹³ for frequency 0, and 2¹³ √2 cos(π/16 · frequency · (2 ·
# sample + 1)) for the others. The second half follows by symmetry. Some entries are rounded to the other side, as in
# libjpeg, which has integers for the factors of this matrix (Loeffler, Ligtenberg and Moschytz, ICASSP 1989).
_HALF = np.array(
    [
        [8192, 8192, 8192, 8192],
        [11363, 9633, 6437, 2260],
        [10703, 4433, -4433, -10703],
        [9633, -2259, -11362, -6436],
        [8192, -8192, -8192, 8192],
        [6437, -11362, 2261, 9633],
        [4433, -10704, 10704, -4433],
        [2260, -6436, 9633, -11363],
    ],
    np.int32,
)
_DCT = np.concatenate([_HALF, _HALF[:, ::-1] * np.array([[1], [-1]] * 4, np.int32)], 1)


def _shift(x: jax.Array, bits: int) -> jax.Array:
    return (x + (1 << (bits - 1))) >> bits  # rounds half up


def _transform(blocks: jax.Array, matrix: np.ndarray, axis: int, bits: int) -> jax.Array:
    """Multiplies an axis of integers by a matrix, and divides by 2^bits."""
    moved = jnp.moveaxis(blocks, axis, -1)
    # Not a matrix product, because accelerators have none for int32.
    products = moved[..., None, :] * jax.lax.broadcast_to_rank(matrix, moved.ndim + 1)
    return jnp.moveaxis(_shift(products.sum(-1), bits), -1, axis)


def _pad(plane: jax.Array, rows: int, columns: int) -> jax.Array:
    """Repeats the last row and column until the sides are multiples of `rows` and `columns`."""
    height, width = plane.shape
    return jnp.pad(plane, [(0, -height % rows), (0, -width % columns)], "edge")


def _compress(plane: jax.Array, table: jax.Array) -> jax.Array:
    """Quantizes the DCT of each 8×8 block of a plane, int32 `[H, W]` in 0..255, and transforms back."""
    height, width = plane.shape
    table = table[None, None]
    padded = _pad(plane, _BLOCK, _BLOCK)
    rows, columns = (side // _BLOCK for side in padded.shape)
    blocks = padded.reshape(rows, _BLOCK, columns, _BLOCK).swapaxes(1, 2) - 128
    # Two fractional bits are kept between both axes. The result is eight times the coefficients.
    coefficients = _transform(_transform(blocks, _DCT, 3, 11), _DCT, 2, 15)
    levels = jnp.sign(coefficients) * ((jnp.abs(coefficients) + 4 * table) // (8 * table))
    restored = _transform(_transform(levels * table, _DCT.T, 2, 11), _DCT.T, 3, 18)
    return (restored + 128).clip(0, 255).swapaxes(1, 2).reshape(padded.shape)[:height, :width]


def _halve(plane: jax.Array) -> jax.Array:
    """Averages 2×2 samples; libjpeg rounds one half down in even columns and up in odd ones."""
    height, width = (side // 2 for side in plane.shape)
    sums = plane.reshape(height, 2, width, 2).sum((1, 3))
    return (sums + 1 + jnp.arange(width)[None, :] % 2) >> 2


def _double(plane: jax.Array) -> jax.Array:
    """Interpolates with weights 3/4 and 1/4 in both directions: libjpeg's "fancy upsampling"."""
    if plane.shape[1] <= 2:  # too narrow for libjpeg
        return plane.repeat(2, 0).repeat(2, 1)
    above, below = (jnp.pad(plane, edges, mode="edge")[cut] for edges, cut in _NEIGHBORS)
    rows = jnp.stack([3 * plane + above, 3 * plane + below], 1).reshape(-1, plane.shape[1])
    left, right = (jnp.pad(rows.T, edges, mode="edge")[cut].T for edges, cut in _NEIGHBORS)
    # The sums are sixteenfold; rounding alternates here too.
    return jnp.stack([(3 * rows + left + 8) >> 4, (3 * rows + right + 7) >> 4], 2).reshape(len(rows), -1)


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
    red, green, blue = jnp.moveaxis(image.astype(jnp.int32), -1, 0)
    # The coefficients of JFIF 1.02 times 2¹⁶.
    y = _compress(_shift(19595 * red + 38470 * green + 7471 * blue, 16), luma_table)
    chroma = []
    for r, g, b in ((-11059, -21709, 32768), (32768, -27439, -5329)):
        plane = ((128 << 16) + (1 << 15) - 1 + r * red + g * green + b * blue) >> 16  # rounds half down
        full = _compress(plane, chroma_table)
        # libjpeg repeats the last column before it averages, but the last row afterwards.
        half = _compress(_halve(_pad(plane, 2, MCU)), chroma_table)[:, : -(-width // 2)]
        half = _double(half)[:height, :width]
        chroma.append(jnp.where(subsampling, half, full) - 128)
    cb, cr = chroma
    colors = [y + _shift(91881 * cr, 16), y + _shift(-22554 * cb - 46802 * cr, 16), y + _shift(116130 * cb, 16)]
    return jnp.stack(colors, -1).clip(0, 255).astype(jnp.float32)
