"""A network together with its weights: what `a2f_jax.load` returns."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from a2f_jax.models.a2f import A2F, VARIANTS, Params, Variant
from a2f_jax.models.layers import normalised_kernel

if TYPE_CHECKING:
    from a2f_jax.inference.upscaler import Upscaler


def fold_weight_norm(params: Params) -> Params:
    """Computes every weight-normalised kernel once, for inference.

    Args:
      params: the tree of `A2F`, whose k×k convolutions are given by direction `v` and gain `g`.

    Returns:
      The tree of `A2F(weight_norm=False)`: `kernel` in the place of `v` and `g`.
    """
    flat = flax.traverse_util.flatten_dict(params)
    folded = {}
    for path, value in flat.items():
        if path[-1] == "v":
            folded[*path[:-1], "kernel"] = normalised_kernel(value, flat[*path[:-1], "g"])
        elif path[-1] != "g":
            folded[path] = value
    return flax.traverse_util.unflatten_dict(folded)


def network_of(params: Params) -> A2F:
    """Finds the network that a parameter tree belongs to, from the names and shapes in it.

    Args:
      params: the tree of `A2F`, not folded.

    Returns:
      The network, computing in float32.

    Raises:
      ValueError: the tree is not A2F's; the message names the first parameter that does not fit.
    """
    try:
        head_kernel, _, _, features = params["head"]["v"].shape
        scale = round((params["tail"]["bias"].shape[0] / 3) ** 0.5)
        block = params["block_00"]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError("there are no head, blocks and tail of A2F") from None
    network = A2F(
        scale=scale,
        features=features,
        blocks=sum(name.startswith("block_") for name in params),
        head_kernel=head_kernel,
        attention="attention" in block,
        auxiliary="projection" in block,
        depthwise="depthwise" in block,
    )
    expected = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    want, have = (flax.traverse_util.flatten_dict(tree, sep=".") for tree in (expected, params))
    for name in sorted({*want, *have}):
        shapes = tuple(tree[name].shape if name in tree else "nothing" for tree in (want, have))
        if shapes[0] != shapes[1]:
            raise ValueError(f"parameter {name} should be {shapes[0]} but is {shapes[1]}")
    return network


def variant_of(network: A2F) -> str:
    """Returns the name of a network's variant, such as `"a2f-sd"`; `"a2f-24x6"` if it has none of its own."""
    size = Variant(network.features, network.blocks)
    name = {v: k for k, v in VARIANTS.items()}.get(size, f"a2f-{size.features}x{size.blocks}")
    if not network.auxiliary:
        name += "-baseline"
    elif not network.attention:
        name += "-noca"
    if network.depthwise:
        name += "-depthwise"
    return name if network.head_kernel == 3 else f"{name}-head{network.head_kernel}"


@dataclasses.dataclass(frozen=True, eq=False)  # compared and hashed by identity, as `jax.jit(model)` needs it
class Model:
    """A network with its weights.

    Attributes:
      network: the module, for training and for taking parts of it.
      params: its parameters, float32, weight-normalised.
      metadata: what is known of the weights beyond their values, such as the step of a training run.
    """

    network: A2F
    params: Params
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_params(cls, params: Params, metadata: Mapping[str, str] | None = None) -> "Model":
        """Makes the model that a parameter tree belongs to; `ValueError` if it is not A2F's."""
        return cls(network_of(params), params, dict(metadata or {}))

    @property
    def variant(self) -> str:
        """The variant's name, such as `"a2f-sd"`."""
        return variant_of(self.network)

    @property
    def scale(self) -> int:
        """The upscaling factor."""
        return self.network.scale

    @functools.cached_property
    def folded(self) -> Params:
        """The parameters without weight normalisation, for `inference_network`."""
        # Concrete even when first asked for inside a jitted function, where a tracer would be cached otherwise.
        with jax.ensure_compile_time_eval():
            return jax.jit(fold_weight_norm)(self.params)  # one program instead of one for every operation

    @functools.cached_property
    def inference_network(self) -> A2F:
        """The network that takes `folded`."""
        return self.network.clone(weight_norm=False)

    def with_dtype(self, dtype: Any) -> "Model":
        """Returns the same model computing in `dtype` (float32 or bfloat16)."""
        return dataclasses.replace(self, network=self.network.clone(dtype=dtype))

    def __call__(self, lr: jax.Array) -> jax.Array:
        """Upscales a batch; a pure function, to be used under `jax.jit` and other transformations.

        Args:
          lr: float32 `[N, H, W, 3]`, RGB on 0..255.

        Returns:
          float32 `[N, scale · H, scale · W, 3]` on the same range, neither clipped nor rounded.
        """
        return self.inference_network.apply({"params": self.folded}, lr)  # type: ignore[return-value]

    @functools.cached_property
    def _upscaler(self) -> "Upscaler":
        from a2f_jax.inference.upscaler import Upscaler  # stands above this module, which is of use without it

        return Upscaler(self)

    def upscale(self, image: np.ndarray) -> np.ndarray:
        """Upscales one image of any size, exactly and in the memory there is; see `a2f_jax.inference`.

        Args:
          image: `[H, W, 3]`, RGB; uint8, uint16 (0..65535) or float32 on 0..255.

        Returns:
          `[scale · H, scale · W, 3]` of the same dtype; integers are rounded to nearest.

        Raises:
          ValueError: the image has another shape or dtype.
        """
        return self._upscaler.upscale(image)
