"""FALSR-A, -B and -C (Chu et al., ICPR 2020).

Source: "Fast, accurate and lightweight super-resolution with neural architecture search".

Found by search, for ×2. On luma y on its full range 0..1,

    f = relu(conv3x3(y))                                        32 channels
    c_k = cell_k(concat(some of f, c_0, ..., c_{k−1}))          seven cells
    y' = conv3x3(depth_to_space(f + relu(conv3x3(concat(some of f, c_0, ..., c_6)))))

A cell is a chain of convolutions, plain or in groups, each with ReLU, or of inverted bottlenecks: conv k×k to twice
the channels, ReLU, depthwise 3×3, ReLU, conv k×k back, plus the input, behind a linear conv1x1. In some cells the
first of the chain (the conv1x1 of bottlenecks) is added to the last.

Chroma comes from Pillow's bicubic interpolation of the 8-bit image. The authors' graph clips the result to 0..255;
here that is left to the conversion to 8 bits, as for every network, so that gradients survive.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from a2f_jax.models.color import LumaNetwork
from a2f_jax.models.layers import per_channel
from a2f_jax.models.peer_layers import PlainConv


class CellForm(NamedTuple):
    """A cell of the search space.

    Attributes:
      inputs: what is concatenated, −1 standing for f.
      kind: `"conv"` or `"bottleneck"`.
      features: number of channels.
      kernel_size: of its convolutions.
      length: number of convolutions or bottlenecks.
      skip: whether the first is added to the last.
      groups: of a `"conv"`.
    """

    inputs: tuple[int, ...]
    kind: str
    features: int
    kernel_size: int
    length: int
    skip: bool
    groups: int = 1


CELLS: dict[str, tuple[CellForm, ...]] = {
    "a": (
        CellForm((-1,), "conv", 64, 3, 4, True),
        CellForm((0,), "conv", 48, 1, 1, False),
        CellForm((1,), "conv", 64, 3, 4, True),
        CellForm((1, 2), "conv", 64, 3, 4, True),
        CellForm((-1, 1, 3), "conv", 64, 3, 4, True),
        CellForm((4,), "conv", 64, 1, 4, False),
        CellForm((-1, 1, 4, 5), "conv", 64, 3, 4, True),
    ),
    "b": (
        CellForm((-1,), "bottleneck", 16, 3, 1, True),
        CellForm((-1, 0), "bottleneck", 48, 1, 2, True),
        CellForm((-1, 0, 1), "conv", 16, 1, 2, True),
        CellForm((2,), "bottleneck", 32, 3, 4, False),
        CellForm((1, 2, 3), "conv", 64, 3, 2, False),
        CellForm((1, 3, 4), "conv", 16, 3, 4, False, groups=4),
        CellForm((-1, 0, 1, 5), "conv", 16, 3, 1, True),
    ),
    "c": (
        CellForm((-1,), "conv", 32, 1, 1, False, groups=2),
        CellForm((-1, 0), "conv", 64, 1, 4, False),
        CellForm((1,), "bottleneck", 48, 3, 4, False),
        CellForm((0, 2), "conv", 32, 1, 1, False, groups=2),
        CellForm((-1, 3), "conv", 32, 1, 1, False, groups=4),
        CellForm((-1, 4), "conv", 48, 1, 4, False),
        CellForm((0, 5), "conv", 16, 3, 1, True),
    ),
}
"""The cells of each variant; their inputs after them."""

TAIL_INPUTS = {"a": (-1, 0, 1, 2, 3, 4, 5, 6), "b": (0, 3, 5, 6), "c": (-1, 1, 5, 6)}
"""What the last convolution sees."""

# Full-range luma and chroma of ITU-R BT.601 for RGB in 0..1, and the graph's way back for components in 0..255.
_TO_YPBPR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_TO_RGB = np.array([[1, 0, 1.402], [1, -0.34414, -0.71414], [1, 1.772, 0]])
_RGB_OFFSET = np.array([-179.456, 135.4598, -226.816])


def _product(components: jax.Array, matrix: np.ndarray) -> jax.Array:
    return jnp.matmul(components, jnp.asarray(matrix, jnp.float32), precision="highest")


class SearchedCell(nn.Module):
    """A cell: `[N, H, W, in]` → `[N, H, W, features]`.

    Attributes:
      form: what it consists of.
    """

    form: CellForm

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """See the module's docstring."""
        form, outputs = self.form, []
        if form.kind == "bottleneck":
            outputs.append(PlainConv(form.features, 1, name="linear")(x))
            for i in range(form.length):
                h = nn.relu(PlainConv(2 * form.features, form.kernel_size, name=f"widen{i}")(outputs[-1]))
                h = nn.relu(PlainConv(2 * form.features, 3, groups=2 * form.features, name=f"depthwise{i}")(h))
                outputs.append(outputs[-1] + PlainConv(form.features, form.kernel_size, name=f"narrow{i}")(h))
        else:
            outputs.append(x)
            for i in range(form.length):
                conv = PlainConv(form.features, form.kernel_size, groups=form.groups, name=f"conv{i}")
                outputs.append(nn.relu(conv(outputs[-1])))
            outputs = outputs[1:]
        return outputs[-1] + outputs[0] if form.skip and form.length > 1 else outputs[-1]


def pillow_bicubic(x: jax.Array, scale: int) -> jax.Array:
    """Enlarges 8-bit images as Pillow does: with rounding after either axis, and kernels cut off at the edges.

    Args:
      x: `[N, H, W, C]`, whole numbers of 0..255 in any dtype.
      scale: factor of both sides.

    Returns:
      int32 `[N, scale · H, scale · W, C]`.
    """
    bits = 22  # Pillow computes in fixed point
    for axis in (2, 1):
        size = x.shape[axis]
        center = (np.arange(size * scale) + 0.5) / scale
        first = np.floor(center - 2 + 0.5).astype(int)
        index = first[:, None] + np.arange(5)
        distance = np.abs(index + 0.5 - center[:, None])
        near, far = distance < 1, distance < 2
        weight = np.where(
            near,
            1.5 * distance**3 - 2.5 * distance**2 + 1,
            np.where(far, -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2, 0),
        )
        weight = np.where((index >= 0) & (index < size), weight, 0)
        weight /= weight.sum(1, keepdims=True)
        fixed = np.trunc(weight * (1 << bits) + np.copysign(0.5, weight)).astype(np.int32)
        taps = jnp.moveaxis(x.astype(jnp.int32), axis, -1)[..., index.clip(0, size - 1)]
        total = (taps * jax.lax.broadcast_to_rank(fixed, taps.ndim)).sum(-1, dtype=jnp.int32) + (1 << (bits - 1))
        x = jnp.moveaxis(jnp.clip(total >> bits, 0, 255), -1, axis)
    return x


class FALSR(LumaNetwork):
    """The whole network, from LR pixels to SR pixels. It has colors of its own: full-range Y, and Pillow's bicubic.

    Attributes:
      variant: `"a"`, `"b"` or `"c"`.
    """

    variant: str = "a"

    @nn.compact
    def __call__(self, lr: jax.Array) -> jax.Array:
        """Upscales a batch: `[N, H, W, 3]` in 0..255 → float32 `[N, 2 · H, 2 · W, 3]` in the same range."""
        rgb = lr.astype(jnp.float32)
        y = _product(rgb / 255, _TO_YPBPR[0])[..., None].astype(self.dtype)
        first = nn.relu(PlainConv(32, name="head")(y))
        outputs: dict[int, jax.Array] = {-1: first}
        for i, form in enumerate(CELLS[self.variant]):
            seen = jnp.concatenate([outputs[j] for j in form.inputs], -1)
            outputs[i] = SearchedCell(form, name=f"cell{i}")(seen)
        seen = jnp.concatenate([outputs[j] for j in TAIL_INPUTS[self.variant]], -1)
        h = first + nn.relu(PlainConv(32, name="body")(seen))
        n, height, width, channels = h.shape
        # TensorFlow's order: the sub-pixel comes before the channel.
        h = h.reshape(n, height, width, 4, channels // 4).reshape(n, height, width, 2, 2, channels // 4)
        h = h.transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * height, width, 2, channels // 4)
        h = h.reshape(n, 2 * height, 2 * width, channels // 4)
        luma = PlainConv(1, name="tail")(h).astype(jnp.float32)
        interpolated = pillow_bicubic(jnp.clip(jnp.round(rgb), 0, 255), 2).astype(jnp.float32)
        chroma = _product(interpolated / 255, _TO_YPBPR[1:].T)
        components = jnp.concatenate([luma, chroma + 0.5], -1) * 255
        sr = _product(components, _TO_RGB.T)
        return sr + per_channel(jnp.asarray(_RGB_OFFSET, jnp.float32), sr)
