"""Degradations that turn HR images into LR images like those that people have: blur, resizing, noise and JPEG.

Each operation is a pure function of one image, to be mapped over a batch with `jax.vmap`. `degrade` applies them in the
order in which a photograph meets them; the model is that of the first order of BSRGAN (Zhang et al., ICCV 2021) and
Real-ESRGAN (Wang et al., ICCVW 2021).
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.fft import next_fast_len

from a2f_jax.data.jpeg_simulation import MCU, jpeg
from a2f_jax.data.matlab_bicubic import resize_taps

RESIZE_KERNELS = ("bicubic", "bilinear", "area")
"""Names of the kernels that images are downscaled with."""

_TRUNCATE = 3
"""Radius of a Gaussian kernel in standard deviations."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "blur_probability",
        "blur_ratio",
        "noise_probability",
        "noise_sigma",
        "poisson_probability",
        "gray_probability",
        "jpeg_probability",
        "jpeg_quality",
        "subsampling_probability",
    ],
    meta_fields=["blur_sigma", "resize_kernels"],
)
@dataclasses.dataclass(frozen=True)
class Degradation:
    """A distribution of degradations. Ranges are inclusive, and values in them equally likely.

    It is a pytree: everything may be traced except `blur_sigma`, which determines sizes, and `resize_kernels`.

    Attributes:
      blur_probability: how many of the images are blurred, 0..1.
      blur_sigma: range of the standard deviation of the blur along its wider axis, in LR pixels.
      blur_ratio: largest ratio of the standard deviations along both axes; 1 makes the blur isotropic. The wider axis
        has any direction.
      resize_kernels: the kernels to downscale with, of `RESIZE_KERNELS`.
      noise_probability: how many of the images are noisy, 0..1.
      noise_sigma: range of the standard deviation of the noise at medium brightness, on 0..255.
      poisson_probability: how much of the noise is Poisson noise, 0..1; the rest is Gaussian.
      gray_probability: how much of the noise is the same in R, G and B, 0..1.
      jpeg_probability: how many of the images are compressed, 0..1.
      jpeg_quality: range of the quality of JPEG, integers in 1..100.
      subsampling_probability: how much of JPEG has chroma of half the resolution (4:2:0), 0..1; the rest is 4:4:4.
    """

    blur_probability: float
    blur_sigma: tuple[float, float]
    blur_ratio: float
    resize_kernels: tuple[str, ...]
    noise_probability: float
    noise_sigma: tuple[float, float]
    poisson_probability: float
    gray_probability: float
    jpeg_probability: float
    jpeg_quality: tuple[int, int]
    subsampling_probability: float

    def border(self) -> int:
        """Returns the number of LR pixels along an edge that depend on what lies outside of the image."""
        # The widest kernel of a resize, the bicubic one, has a radius of two LR pixels.
        return 2 + math.ceil(_TRUNCATE * self.blur_sigma[1])

    def source_size(self, patch_size: int) -> int:
        """Returns the side of the area, in LR pixels, from which `degrade_batch` makes patches of a size.

        The area is a whole number of JPEG's units, and leaves room to place the patch anywhere on their grid, away from
        the edges.
        """
        return math.ceil((patch_size + MCU - 1 + 2 * self.border()) / MCU) * MCU


def gaussian_blur(image: jax.Array, sigma: jax.Array, ratio: jax.Array, angle: jax.Array, *, radius: int) -> jax.Array:
    """Blurs an image by a Gaussian, which may be wider along one axis than along the other.

    The spectrum is multiplied by that of the Gaussian, exp(−½ ωᵀ Σ ω), where Σ has the variances sigma² along the wider
    axis and (sigma / ratio)² along the other one. Outside of the image, its edge pixels are repeated.

    Args:
      image: float32 `[H, W, 3]`.
      sigma: standard deviation along the wider axis, in pixels, a scalar ≥ 0.
      ratio: `sigma` divided by the standard deviation along the other axis, a scalar ≥ 1.
      angle: direction of the wider axis, in radians from horizontal towards the bottom.
      radius: how many pixels outside of the image are taken into account, at least three times the largest `sigma`.

    Returns:
      float32 `[H, W, 3]`.
    """
    height, width, _ = image.shape
    # The transform is periodic; what is added at one edge separates it from the other one too.
    rows, columns = (next_fast_len(side + 2 * radius, real=True) for side in (height, width))
    edges = [(radius, full - side - radius) for side, full in ((height, rows), (width, columns))]
    padded = jnp.pad(jnp.moveaxis(image, -1, 0), [(0, 0), *edges], mode="edge")
    y = 2 * np.pi * np.fft.fftfreq(rows)[:, None].astype(np.float32)
    x = 2 * np.pi * np.fft.rfftfreq(columns)[None, :].astype(np.float32)
    along, across = x * jnp.cos(angle) + y * jnp.sin(angle), y * jnp.cos(angle) - x * jnp.sin(angle)
    gain = jnp.exp(-((sigma * along) ** 2 + (sigma / ratio * across) ** 2) / 2)
    blurred = jnp.fft.irfft2(jnp.fft.rfft2(padded) * gain[None], padded.shape[1:])
    return jnp.moveaxis(blurred[:, radius : radius + height, radius : radius + width], 0, -1)


@functools.lru_cache(maxsize=16)
def _resize_matrices(size: int, scale: int, kernels: tuple[str, ...]) -> np.ndarray:
    """Returns matrices that downscale an axis, float32 `[kernels, size / scale, size]`."""
    matrices = np.zeros((len(kernels), size // scale, size), np.float32)
    for matrix, kernel in zip(matrices, kernels, strict=True):
        index, weight = resize_taps(size, 1 / scale, "clamp", kernel)
        np.add.at(matrix, (np.arange(size // scale)[:, None], index), weight)
    return matrices


def downscale(
    image: jax.Array, kernel: jax.Array, *, scale: int, kernels: tuple[str, ...] = RESIZE_KERNELS
) -> jax.Array:
    """Downscales an image with antialiasing. Outside of the image, its edge pixels are repeated.

    Args:
      image: float32 `[H, W, 3]`; both sides are multiples of `scale`.
      kernel: index of the resize kernel in `kernels`, an integer scalar; may be traced. `"bicubic"` and `"bilinear"`
        are those of MATLAB's `imresize`; `"area"` averages scale × scale pixels.
      scale: the factor by which both sides shrink.
      kernels: names of the resize kernels, of `RESIZE_KERNELS`.

    Returns:
      float32 `[H / scale, W / scale, 3]`, neither rounded nor clipped.
    """
    height, width, _ = image.shape
    down, across = (jnp.asarray(_resize_matrices(side, scale, kernels))[kernel] for side in (height, width))
    low = jnp.einsum("oh,hwc->owc", down, image, precision="highest")
    return jnp.einsum("pw,owc->opc", across, low, precision="highest")


def gaussian_noise(image: jax.Array, normal: jax.Array, sigma: jax.Array) -> jax.Array:
    """Adds Gaussian noise.

    Args:
      image: float32 `[H, W, 3]` on 0..255.
      normal: standard normal random numbers, `[H, W, 3]` for color noise or `[H, W, 1]` for gray noise.
      sigma: standard deviation on 0..255, a scalar.

    Returns:
      float32 `[H, W, 3]`, neither rounded nor clipped.
    """
    return image + sigma * normal


def poisson_noise(image: jax.Array, normal: jax.Array, sigma: jax.Array) -> jax.Array:
    """Replaces each value by one of a Poisson distribution, as if photons were counted.

    The expected number of photons λ is proportional to the value, and so is the variance of the result. The numbers are
    not drawn from normal ones by rejection, which takes a varying number of rounds, but by the asymptotic expansion of
    the quantile function (Giles, ACM TOMS 42(1), 2016, equation for Q_N2): ⌊λ + √λ w + 1/3 + w²/6 − (w + w³/2) /
    (36 √λ)⌋ for a standard normal w.

    Args:
      image: float32 `[H, W, 3]` on 0..255.
      normal: standard normal random numbers, `[H, W, 3]` for color noise or `[H, W, 1]` for gray noise.
      sigma: standard deviation at 127.5, the middle of 0..255; a positive scalar.

    Returns:
      float32 `[H, W, 3]`, not negative, neither rounded nor clipped at 255.
    """
    photons = 127.5 / sigma**2  # per unit of `image`
    expected = jnp.maximum(image, 0) * photons
    root = jnp.sqrt(expected)
    count = expected + root * normal + 1 / 3 + normal**2 / 6 - (normal + normal**3 / 2) / (36 * jnp.maximum(root, 1))
    return jnp.where(expected > 0, jnp.maximum(jnp.floor(count), 0), 0) / photons


def _round(image: jax.Array) -> jax.Array:
    return jnp.floor(image + 0.5).clip(0, 255)


_CHOICES = 12
"""Number of random numbers that choose a degradation."""


def degrade(hr: jax.Array, key: jax.Array, degradation: Degradation, scale: int) -> jax.Array:
    """Makes an LR image of an HR image by a random degradation: blur, resizing, noise and JPEG, in this order.

    Each stage ends with pixels of 8 bits, as it does in reality.

    Args:
      hr: uint8 RGB `[H, W, 3]`; both sides are multiples of `scale`.
      key: the key that determines the degradation.
      degradation: the distribution of the degradation.
      scale: the factor by which both sides shrink.

    Returns:
      uint8 RGB `[H / scale, W / scale, 3]`.
    """
    d = degradation
    shape = (hr.shape[0] // scale, hr.shape[1] // scale, 3)
    # All numbers at once, because every call of a generator takes a second to compile; and the same ones whatever the
    # settings of the process are.
    count = _CHOICES + math.prod(shape)
    with jax.threefry_partitionable(True):
        drawn = jax.random.uniform(key, (count,), jnp.float32, np.nextafter(np.float32(-1), 0), 1)
    u = iter((drawn[:_CHOICES] + 1) / 2)
    normal = math.sqrt(2) * jax.lax.erf_inv(drawn[_CHOICES:].reshape(shape))

    def happens(probability: float) -> jax.Array:
        return next(u) < probability

    def between(low: float, high: float) -> jax.Array:
        return low + (high - low) * next(u)

    sigma = jnp.where(happens(d.blur_probability), between(*d.blur_sigma) * scale, 0)
    ratio, angle = between(1, d.blur_ratio), between(0, math.pi)
    radius = math.ceil(_TRUNCATE * d.blur_sigma[1] * scale)
    blurred = gaussian_blur(hr.astype(jnp.float32), sigma, ratio, angle, radius=radius)
    kernel = jnp.floor(next(u) * len(d.resize_kernels)).astype(jnp.int32)
    lr = _round(downscale(blurred, kernel, scale=scale, kernels=d.resize_kernels))

    noisy, poisson, gray = (happens(p) for p in (d.noise_probability, d.poisson_probability, d.gray_probability))
    strength = between(*d.noise_sigma)
    normal = jnp.where(gray, normal[..., :1], normal)
    with_noise = jnp.where(
        poisson, poisson_noise(lr, normal, jnp.maximum(strength, 1e-3)), gaussian_noise(lr, normal, strength)
    )
    lr = jnp.where(noisy, _round(with_noise), lr)

    compressed, subsampling = happens(d.jpeg_probability), happens(d.subsampling_probability)
    low, high = d.jpeg_quality
    quality = jnp.minimum(jnp.floor(between(low, high + 1)), high)  # the sum may be rounded up
    return jnp.where(compressed, jpeg(lr, quality, subsampling), lr).astype(jnp.uint8)


def degrade_batch(batch: dict[str, Any], degradation: Degradation, scale: int, patch_size: int) -> dict[str, jax.Array]:
    """Makes training pairs of HR images that are larger than the patches.

    Each image is degraded as a whole; the pair is then cropped away from its edges, at a random place of the grid of
    JPEG, as if both were cut out of a photograph. It depends on the HR image and its key, but not on the others.

    Args:
      batch: `{"hr": uint8 [B, s·S, s·S, 3], "key": uint32 [B, 2]}`, where S is `degradation.source_size(patch_size)`
        and s is `scale`.
      degradation: the distribution of the degradations.
      scale: the scale of the pairs.
      patch_size: the side of the LR patches, in pixels.

    Returns:
      `{"lr": uint8 [B, p, p, 3], "hr": uint8 [B, s·p, s·p, 3]}`, where p is `patch_size`.
    """

    def pair(hr: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        # The words of the key are as random as what is made of them.
        top, left = degradation.border() + (key % MCU).astype(jnp.int32)
        lr = degrade(hr, jax.random.wrap_key_data(key, impl="threefry2x32"), degradation, scale)
        p = patch_size
        return (
            jax.lax.dynamic_slice(lr, (top, left, jnp.int32(0)), (p, p, 3)),
            jax.lax.dynamic_slice(hr, (scale * top, scale * left, jnp.int32(0)), (scale * p, scale * p, 3)),
        )

    lr, hr = jax.vmap(pair)(batch["hr"], batch["key"])
    return {"lr": lr, "hr": hr}
