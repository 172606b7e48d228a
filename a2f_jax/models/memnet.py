"""MemNet (Tai et al., ICCV 2017): M6R6.

Source: "MemNet: a persistent memory network for image restoration".

On enlarged luma y, every convolution behind batch normalization and ReLU, 64 channels,

    B_0 = conv3x3(y)
    block m = 1..6: R_0 = B_{m−1};  R_k = R_{k−1} + conv3x3_2(conv3x3_1(R_{k−1})), k = 1..6, the two kernels shared
                    B_m = conv1x1(concat(B_0, ..., B_{m−1}, R_1, ..., R_6))
    y' = Σ_m w_m · (y + conv3x3(B_m))

with one convolution for all six images and learned weights w. One network serves all scales.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from a2f_jax.models.color import LumaNetwork
from a2f_jax.models.layers import per_channel
from a2f_jax.models.peer_layers import PlainConv

BLOCKS = 6
RECURSIONS = 6


class FrozenBatchNorm(nn.Module):
    """Batch normalization by stored statistics, as at inference: a scale and a shift for each channel.

    Training with the statistics of a batch would make images depend on each other, and gains nothing in networks for
    super-resolution; here the statistics are those of the start, 0 and 1.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, C]` → the same."""
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32).astype(x.dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32).astype(x.dtype)
        return x * per_channel(scale, x) + per_channel(bias, x)


class MemoryBlock(nn.Module):
    """A memory block: all earlier results, each `[N, H, W, 64]` → its own."""

    @nn.compact
    def __call__(self, memory: list[jax.Array]) -> jax.Array:
        """See the module's docstring."""
        conv1, conv2 = (PlainConv(64, use_bias=False, name=name) for name in ("conv1", "conv2"))
        r, short = memory[-1], []
        for k in range(RECURSIONS):
            h = conv1(nn.relu(FrozenBatchNorm(name=f"norm{k}_1")(r)))
            r += conv2(nn.relu(FrozenBatchNorm(name=f"norm{k}_2")(h)))
            short.append(r)
        seen = jnp.concatenate([*memory, *short], -1)
        return PlainConv(64, 1, use_bias=False, name="gate")(nn.relu(FrozenBatchNorm(name="norm_gate")(seen)))


class MemNet(LumaNetwork):
    """The whole network, from LR pixels to SR pixels; see `LumaNetwork`."""

    enlarged = True

    def luma(self, y: jax.Array) -> jax.Array:
        """See the module's docstring."""
        h = y.astype(self.dtype)
        memory = [PlainConv(64, use_bias=False, name="head")(nn.relu(FrozenBatchNorm(name="norm_head")(h)))]
        weights = self.param("weights", nn.initializers.constant(1 / BLOCKS), (BLOCKS,), jnp.float32).astype(self.dtype)
        tail, norm = PlainConv(1, use_bias=False, name="tail"), FrozenBatchNorm(name="norm_tail")
        total = jnp.zeros_like(h)
        for m in range(BLOCKS):
            memory.append(MemoryBlock(name=f"block{m}")(memory))
            total += weights[m] * (h + tail(nn.relu(norm(memory[-1]))))
        return total
