"""A2F, the attentive auxiliary feature network (Wang et al., ACCV 2020), and its variants.

From the head's features s_0, block i computes

    res     = conv3x3(relu(conv3x3(s_i)))                       residual branch with 128 hidden channels
    p       = conv1x1(concat(s_0, ..., s_i))                    projection unit
    a       = sigmoid(conv1x1(relu(conv1x1(mean_hw(p)))))       channel attention
    s_{i+1} = λ_x · s_i + λ_res · res + λ_aux · (a · p)         three learned scalars per block

and the output is pixel_shuffle(conv3x3(s_L)) + pixel_shuffle(conv3x3(x)), the tail plus the skip connection.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from a2f_jax.catalog import SCALES
from a2f_jax.models import packed
from a2f_jax.models.layers import (
    Conv,
    Dtype,
    PackedProjection,
    abstract_variables,
    conv_init,
    normalized_kernel,
    per_channel,
    pixel_shuffle,
    pointwise_conv,
)

Params = dict[str, Any]

RGB_MEAN = np.array([0.4488, 0.4371, 0.4040], np.float32) * 255
"""Mean color of DIV2K in 0..255, subtracted from the input and added to the output."""

HALF_RANGE = 127.5
"""The input is divided by this after the mean is subtracted, and the output is multiplied by it."""

HIDDEN = 128
"""Number of hidden channels in the residual branch of a block, the same in every variant."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """The width (channels of the states) and depth (number of blocks) of a network."""

    features: int
    blocks: int


VARIANTS = {
    "a2f-s": Variant(32, 4),
    "a2f-sd": Variant(16, 8),
    "a2f-m": Variant(32, 12),
    "a2f-l": Variant(32, 16),
}

ABLATIONS: dict[str, dict[str, Any]] = {
    "baseline": {"auxiliary": False},
    "baseline_mp": {"auxiliary": False, "blocks": 18},
    "noca": {"attention": False},
    "noca_mp": {"attention": False, "depthwise": True},
}
"""The paper's ablations of A2F-L, as attributes of `A2F`. NOCA is "no channel attention", MP "more parameters"."""


class Attention(nn.Module):
    """Channel attention: one weight in 0..1 per channel, computed from the channel means over the image."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, mean: jax.Array) -> jax.Array:
        """Maps the means over height and width, `[N, n]`, to weights `[N, n]`."""
        n = mean.shape[-1]
        hidden = nn.relu(pointwise_conv(n, n, self.dtype, "squeeze")(mean))
        return nn.sigmoid(pointwise_conv(n, n, self.dtype, "excite")(hidden))


class Block(nn.Module):
    """Attentive auxiliary feature block. The docstring of the module gives its equations.

    Attributes:
      attention: whether channel attention weights the projection.
      auxiliary: whether the block has a projection unit.
      depthwise: whether a depthwise 3×3 convolution without bias precedes the projection.
      weight_norm: whether 3×3 kernels are weight-normalized; False for folded parameters.
      dtype: computation dtype.
      winograd: whether wide 3×3 convolutions use Winograd's algorithm.
      pack: number of pixels in the channels of a state, see `a2f_jax.models.packed`; 1 if they are not packed.
    """

    attention: bool = True
    auxiliary: bool = True
    depthwise: bool = False
    weight_norm: bool = True
    dtype: Dtype = jnp.float32
    winograd: bool = False
    pack: int = 1

    @nn.compact
    def __call__(self, states: Sequence[jax.Array]) -> jax.Array:
        """Maps the states s_0, ..., s_i, each `[N, H, W, n]` or packed, to s_{i+1} of the same shape."""
        s = states[-1]
        n = s.shape[-1] // self.pack

        def weight(name: str) -> jax.Array:
            return self.param(name, nn.initializers.ones, (), jnp.float32).astype(self.dtype)

        def conv(features: int, name: str, pixels: int = 1) -> Conv:
            return Conv(features, 3, self.weight_norm, self.dtype, self.winograd, pixels, name=name)

        if self.pack > 1:
            # The hidden layer includes the pixels beside the pack, which `reduce` needs. It is zero outside the image.
            hidden = nn.relu(conv(HIDDEN, "expand", self.pack + 4)(packed.with_neighbors(s, self.pack, 2)))
            hidden = jnp.where(packed.inside(s.shape[2], self.pack, 1, HIDDEN), hidden, 0)
            res = conv(n, "reduce", self.pack + 2)(hidden)
        else:
            res = conv(n, "reduce")(nn.relu(conv(HIDDEN, "expand")(s)))
        out = weight("lambda_x") * s + weight("lambda_res") * res
        if not self.auxiliary:
            return out
        if self.pack > 1:
            p = PackedProjection(self.pack, self.dtype, name="projection")(states)
            if self.attention:
                # First over the packs: a reshape of the whole would move all pixels to other lanes.
                means = jnp.mean(p, axis=(1, 2), dtype=jnp.float32).reshape(len(p), self.pack, n)
                mean = jnp.mean(means, axis=1).astype(self.dtype)
                weights = Attention(dtype=self.dtype, name="attention")(mean)
                p = jnp.tile(weights, self.pack)[:, None, None, :] * p
            return out + weight("lambda_aux") * p
        concatenated = jnp.concatenate(states, -1)
        channels = concatenated.shape[-1]
        if self.depthwise:
            concatenated = nn.Conv(
                channels,
                (3, 3),
                feature_group_count=channels,
                use_bias=False,
                dtype=self.dtype,
                kernel_init=conv_init,
                name="depthwise",
            )(concatenated)
        projection = pointwise_conv(n, channels, self.dtype, "projection", use_bias=False)
        p = projection(concatenated)
        if self.attention:
            mean = jnp.mean(p, axis=(1, 2), dtype=jnp.float32).astype(self.dtype)
            p = Attention(dtype=self.dtype, name="attention")(mean)[:, None, None, :] * p
        return out + weight("lambda_aux") * p


class A2F(nn.Module):
    """The whole network, from LR pixels to SR pixels.

    Attributes:
      scale: upscaling factor.
      features: number of channels of the states, n.
      blocks: number of blocks, L.
      head_kernel: kernel size of the head, odd.
      attention: whether projections are weighted by channel attention; False for the paper's NOCA ablation.
      auxiliary: whether blocks have a projection unit; False for the paper's baseline, which has no attention either.
      depthwise: whether a depthwise 3×3 convolution precedes each projection, as in the paper's A2F-L-NOCA-MP.
      weight_norm: whether k×k kernels are weight-normalized; False for the parameters that `fold_weight_norm` returns.
      dtype: computation dtype; parameters, skip connection, and output are float32.
      remat: whether the backward pass recomputes the activations inside each block instead of storing them, which
        saves memory in training.
      winograd: whether wide 3×3 convolutions use Winograd's algorithm; `prefers_winograd` tells where it is faster.
      pack: number of pixels to pack into the channels of the states, see `a2f_jax.models.packed`; `pixels_per_pack`
        tells where this is faster. Images whose width is not a multiple of it, and networks with depthwise projections,
        are computed without packing.
    """

    scale: int
    features: int
    blocks: int
    head_kernel: int = 3
    attention: bool = True
    auxiliary: bool = True
    depthwise: bool = False
    weight_norm: bool = True
    dtype: Dtype = jnp.float32
    remat: bool = False
    winograd: bool = False
    pack: int = 1

    @nn.compact
    def __call__(self, lr: jax.Array) -> jax.Array:
        """Upscales a batch.

        Args:
          lr: `[N, H, W, 3]`, RGB in 0..255, of any real dtype.

        Returns:
          float32 `[N, scale · H, scale · W, 3]` in the same range, neither clipped nor rounded.

        Raises:
          ValueError: the batch has another shape, or `head_kernel` is even.
        """
        _check_head(self.head_kernel)
        if lr.ndim != 4 or lr.shape[-1] != 3:
            raise ValueError(f"expected a batch [N, H, W, 3], got {list(lr.shape)}")

        n, height, width, _ = lr.shape
        pack = self.pack if width % self.pack == 0 and not self.depthwise else 1

        def conv(x: jax.Array, features: int, name: str, kernel_size: int = 3) -> jax.Array:
            halo = kernel_size // 2
            options = (self.weight_norm, x.dtype, self.winograd, pack + 2 * halo if pack > 1 else 1)
            layer = Conv(features, kernel_size, *options, name=name)
            return layer(packed.with_neighbors(x, pack, halo) if pack > 1 else x)

        x = (lr.astype(jnp.float32) - per_channel(RGB_MEAN, lr)) / HALF_RANGE
        x = x.reshape(n, height, width // pack, pack * 3)
        states = [conv(x.astype(self.dtype), self.features, "head", self.head_kernel)]
        block_type = nn.remat(Block) if self.remat else Block
        for i in range(self.blocks):
            block = block_type(
                self.attention,
                self.auxiliary,
                self.depthwise,
                self.weight_norm,
                self.dtype,
                self.winograd,
                pack,
                name=f"block_{i:02d}",
            )
            states.append(block(states))
        # Pixel shuffle only moves values, so that adding before it gives the same result with one shuffle, not two.
        channels = 3 * self.scale**2
        # Where LR is flat, SR consists of the skip connection only. bfloat16, in which the default precision of TPUs
        # multiplies float32 as well, would round it to whole levels.
        with jax.default_matmul_precision("highest"):
            skip = conv(x, channels, "skip")
        sub_pixels = conv(states[-1], channels, "tail").astype(jnp.float32) + skip
        sub_pixels = sub_pixels.reshape(n, height, width, channels)
        return pixel_shuffle(sub_pixels, self.scale) * HALF_RANGE + per_channel(RGB_MEAN, lr)


def build(variant: str, scale: int, **options: Any) -> A2F:
    """Returns the network of a named variant.

    Args:
      variant: a name in `VARIANTS`, such as `"a2f-sd"`.
      scale: an upscaling factor in `SCALES`.
      **options: other attributes of `A2F`; `features` and `blocks` override those of the variant.

    Raises:
      ValueError: the variant or the scale does not exist.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}: choose one of {', '.join(VARIANTS)}")
    if scale not in SCALES:
        raise ValueError(f"unknown scale {scale!r}: choose one of {', '.join(map(str, SCALES))}")
    return A2F(**{"scale": scale, **dataclasses.asdict(VARIANTS[variant]), **options})


def fold_weight_norm(params: Params) -> Params:
    """Computes every weight-normalized kernel, for inference.

    Args:
      params: the parameters of a network, such as an `A2F`, whose k×k convolutions have a direction `v` and a gain `g`.

    Returns:
      The parameters of the same network with `weight_norm=False`: `kernel` replaces `v` and `g`.
    """
    flat = flax.traverse_util.flatten_dict(params)
    folded = {}
    for path, value in flat.items():
        if path[-1] == "v":
            folded[*path[:-1], "kernel"] = normalized_kernel(value, flat[*path[:-1], "g"])
        elif path[-1] != "g":
            folded[path] = value
    return flax.traverse_util.unflatten_dict(folded)


def is_weight_normalized(params: Params) -> bool:
    """Returns whether there are kernels that `fold_weight_norm` computes: directions `v` beside gains `g`."""
    paths = {*flax.traverse_util.flatten_dict(params)}
    return any(path[-1] == "v" and (*path[:-1], "g") in paths for path in paths)


def check_shapes(network: nn.Module, params: Params) -> None:
    """Raises a `ValueError` that names the first parameter whose name or shape is not the network's."""
    side = getattr(network, "smallest", 8)
    expected = abstract_variables(network, 1, side, side, 3)["params"]
    want, have = (flax.traverse_util.flatten_dict(tree, sep=".") for tree in (expected, params))
    for name in sorted({*want, *have}):
        shapes = tuple(tree[name].shape if name in tree else None for tree in (want, have))
        if shapes[0] != shapes[1]:
            if shapes[0] is None:
                raise ValueError(f"parameter {name} does not belong to the network")
            if shapes[1] is None:
                raise ValueError(f"parameter {name} is missing")
            raise ValueError(f"parameter {name} must have shape {shapes[0]}, not {shapes[1]}")


def _check_head(kernel_size: int) -> None:
    # A result computed in tiles depends on the same number of pixels on either side.
    if kernel_size % 2 == 0:
        raise ValueError(f"the kernel of the head has the size {kernel_size}, but must be odd")


def infer_network(params: Params) -> A2F:
    """Infers the network that a parameter tree belongs to from the names and shapes of the parameters.

    Args:
      params: the weight-normalized (not folded) parameters of an `A2F`.

    Returns:
      The network, with dtype float32.

    Raises:
      ValueError: the tree is not that of an A2F; the message names the first parameter that does not fit.
    """
    try:
        head_kernel, _, _, features = params["head"]["v"].shape
        scale = round((params["tail"]["bias"].shape[0] / 3) ** 0.5)
        block = params["block_00"]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise ValueError("the head, blocks and tail of A2F are missing") from None
    if min(head_kernel, features, scale) < 1:
        raise ValueError(f"the head has the shape {list(params['head']['v'].shape)}, and the tail is for ×{scale}")
    _check_head(head_kernel)
    network = A2F(
        scale=scale,
        features=features,
        blocks=sum(name.startswith("block_") for name in params),
        head_kernel=head_kernel,
        attention="attention" in block,
        auxiliary="projection" in block,
        depthwise="depthwise" in block,
    )
    check_shapes(network, params)
    return network


def variant_of(network: A2F) -> str:
    """Returns a network's name, such as `"a2f-sd"`, or for example `"a2f-24x6"` for 24 features and 6 blocks."""
    size = Variant(network.features, network.blocks)
    name = {v: k for k, v in VARIANTS.items()}.get(size, f"a2f-{size.features}x{size.blocks}")
    if not network.auxiliary:
        name += "-baseline"
    elif not network.attention:
        name += "-noca"
    if network.depthwise:
        name += "-depthwise"
    return name if network.head_kernel == 3 else f"{name}-head{network.head_kernel}"
