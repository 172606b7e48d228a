"""Layers of the networks that A2F is compared with: plain, grouped, strided and transposed convolutions.

They compute in the dtype of their input; parameters are float32.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from a2f_jax.models.layers import bias_init, conv_init, interpolate, per_channel

_LAYOUT = ("NHWC", "HWIO", "NHWC")

_FEW_GROUPS = 8


class PlainConv(nn.Module):
    """A k×k convolution without weight normalization.

    Its parameters are `kernel` `[k, k, in / groups, features]` and `bias` `[features]`.

    Attributes:
      features: number of output channels.
      kernel_size: k.
      stride: of the output, in pixels of the input.
      groups: number of groups that input and output channels are split into.
      use_bias: whether there is a bias.
      padding: `"SAME"` keeps the size and pads with zeros, `"VALID"` does not pad.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    groups: int = 1
    use_bias: bool = True
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, in]` → `[N, H', W', features]`."""
        fan_in = x.shape[-1] // self.groups
        kernel = self.param("kernel", conv_init, (self.kernel_size, self.kernel_size, fan_in, self.features))
        # XLA's convolution in groups is 20 times as slow on a CPU as one convolution for each of a few groups.
        parts = self.groups if self.groups <= _FEW_GROUPS else 1
        inputs, kernels = jnp.split(x, parts, -1), jnp.split(kernel.astype(x.dtype), parts, -1)
        outputs = [
            jax.lax.conv_general_dilated(
                part,
                part_kernel,
                (self.stride, self.stride),
                self.padding,
                dimension_numbers=_LAYOUT,
                feature_group_count=self.groups // parts,
            )
            for part, part_kernel in zip(inputs, kernels, strict=True)
        ]
        y = jnp.concatenate(outputs, -1) if parts > 1 else outputs[0]
        if self.use_bias:
            bias = self.param("bias", bias_init(self.kernel_size**2 * fan_in), (self.features,))
            y += per_channel(bias.astype(x.dtype), y)
        return y


class TransposedConv(nn.Module):
    """A transposed convolution: input pixel i adds its kernel to the output from pixel `stride · i − crop` on.

    Its parameters are `kernel` `[k, k, in, features]` and `bias` `[features]`.

    Attributes:
      features: number of output channels.
      kernel_size: k.
      stride: of the output.
      crop: pixels cut off at the top and at the left.
      extra: pixels that the output has beyond `stride` times the input.
      use_bias: whether there is a bias.
    """

    features: int
    kernel_size: int
    stride: int
    crop: int
    extra: int = 0
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, in]` → `[N, stride · H + extra, stride · W + extra, features]`."""
        k, fan_in = self.kernel_size, x.shape[-1]
        kernel = self.param("kernel", conv_init, (k, k, fan_in, self.features))
        before = k - 1 - self.crop
        # The dilated input has stride · (n − 1) + 1 pixels.
        after = self.stride - 1 + self.extra + k - 1 - before
        y = jax.lax.conv_general_dilated(
            x,
            kernel[::-1, ::-1].astype(x.dtype),
            (1, 1),
            [(before, after)] * 2,
            lhs_dilation=(self.stride, self.stride),
            dimension_numbers=_LAYOUT,
        )
        if self.use_bias:
            bias = self.param("bias", bias_init(k * k * fan_in), (self.features,))
            y += per_channel(bias.astype(x.dtype), y)
        return y


class PReLU(nn.Module):
    """Parametric ReLU (He et al., 2015): `max(x, 0) + slope · min(x, 0)`.

    Attributes:
      channelwise: whether every channel has a slope of its own.
      initial: the slope at the start of training.
    """

    channelwise: bool = True
    initial: float = 0.25

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Any shape, channels last."""
        shape = (x.shape[-1],) if self.channelwise else ()
        slope = self.param("slope", nn.initializers.constant(self.initial), shape, jnp.float32).astype(x.dtype)
        return jnp.maximum(x, 0) + per_channel(slope, x) * jnp.minimum(x, 0)


def resize_bilinear(x: jax.Array, height: int, width: int) -> jax.Array:
    """Bilinear interpolation with pixel centers aligned and edges repeated, without antialiasing: `[N, H, W, C]`."""
    # Not `jax.image.resize`, which multiplies by a matrix of weights for all pairs of pixels, most of them zero.
    for axis, size in ((1, height), (2, width)):
        position = np.clip((np.arange(size) + 0.5) * (x.shape[axis] / size) - 0.5, 0, x.shape[axis] - 1)
        first = np.floor(position).astype(int)
        second = np.minimum(first + 1, x.shape[axis] - 1)
        share = jnp.asarray(position - first, x.dtype).reshape([-1 if i == axis else 1 for i in range(4)])
        x = jnp.take(x, first, axis) * (1 - share) + jnp.take(x, second, axis) * share
    return x


def enlarge_bilinear(x: jax.Array, scale: int) -> jax.Array:
    """Enlarges `[N, H, W, C]` to `[N, scale · H, scale · W, C]` by the interpolation of `resize_bilinear`."""
    distance = np.arange(-1, 2)[:, None] - ((np.arange(scale) + 0.5) / scale - 0.5)
    return interpolate(x, np.maximum(1 - np.abs(distance), 0))


class EnhancedSpatialAttention(nn.Module):
    """Enhanced spatial attention (Liu et al., RFANet, 2020) in the form of RLFN and BSRN, with 16 channels inside.

    It looks at the whole image: a strided convolution and a strided pooling leave few pixels, which are interpolated.

    Attributes:
      blueprint: False for RLFN's plain convolutions; True for BSRN's blueprint separable ones, with GELU.
    """

    blueprint: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, C]` → the same, weighted by 0..1."""
        inside = 16
        reduced = PlainConv(inside, 1, name="conv1")(x)
        if self.blueprint:
            small = BlueprintConv(inside, stride=2, padding="VALID", name="conv2")(reduced)
        else:
            small = PlainConv(inside, 3, stride=2, padding="VALID", name="conv2")(reduced)
        small = nn.max_pool(small, (7, 7), (3, 3), "VALID")
        if self.blueprint:
            small = nn.gelu(BlueprintConv(inside, name="conv_max")(small), approximate=False)
            small = nn.gelu(BlueprintConv(inside, name="conv3")(small), approximate=False)
            small = BlueprintConv(inside, name="conv3_")(small)
        else:
            small = PlainConv(inside, 3, name="conv3")(small)
        whole = resize_bilinear(small, x.shape[1], x.shape[2]) + PlainConv(inside, 1, name="conv_f")(reduced)
        return x * nn.sigmoid(PlainConv(x.shape[-1], 1, name="conv4")(whole))


class BlueprintConv(nn.Module):
    """Blueprint separable convolution (Haase & Amthor, 2020): 1×1 without bias, then depthwise 3×3.

    Attributes:
      features: number of output channels.
      stride: of the depthwise part.
      padding: of the depthwise part, see `PlainConv`.
    """

    features: int
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, in]` → `[N, H', W', features]`."""
        x = PlainConv(self.features, 1, use_bias=False, name="pointwise")(x)
        return PlainConv(
            self.features, 3, stride=self.stride, groups=self.features, padding=self.padding, name="depthwise"
        )(x)


class ContrastAttention(nn.Module):
    """Contrast-aware channel attention (Hui et al., IMDN, 2019): from standard deviation plus mean over the image."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, C]` → the same, weighted by 0..1."""
        wide = x.astype(jnp.float32)
        mean = jnp.mean(wide, (1, 2), keepdims=True)
        contrast = jnp.sqrt(jnp.mean(jnp.square(wide - mean), (1, 2), keepdims=True)) + mean
        hidden = nn.relu(PlainConv(x.shape[-1] // 16, 1, name="squeeze")(contrast.astype(x.dtype)))
        return x * nn.sigmoid(PlainConv(x.shape[-1], 1, name="excite")(hidden))


# Kernel size and padding of projections between LR and SR size, as in DBPN and SRFBN; the stride is the scale.
_PROJECTIONS = {2: (6, 2), 3: (7, 2), 4: (8, 2)}


class ProjectionUp(nn.Module):
    """A transposed convolution from LR to SR size.

    Attributes:
      features: number of output channels.
      scale: 2, 3 or 4.
    """

    features: int
    scale: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, in]` → `[N, scale · H, scale · W, features]`."""
        size, margin = _PROJECTIONS[self.scale]
        return TransposedConv(self.features, size, self.scale, crop=margin, name="conv")(x)


class ProjectionDown(nn.Module):
    """A strided convolution from SR to LR size.

    Attributes:
      features: number of output channels.
      scale: 2, 3 or 4.
    """

    features: int
    scale: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, scale · H, scale · W, in]` → `[N, H, W, features]`."""
        size, margin = _PROJECTIONS[self.scale]
        x = jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
        return PlainConv(self.features, size, stride=self.scale, padding="VALID", name="conv")(x)
