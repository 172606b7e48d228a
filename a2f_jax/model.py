"""A network together with its weights: what `a2f_jax.load` returns."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from a2f_jax.errors import UserError
from a2f_jax.models.a2f import A2F, VARIANTS, Params, fold_weight_norm, network_of, variant_of
from a2f_jax.models.convolution import prefers_winograd
from a2f_jax.upscaling.upscaler import Upscaler
from a2f_jax.weights import read_weights, shipped_weights, write_safetensors


def _for_this_backend(network: A2F) -> A2F:
    """The same network with the convolutions that are fastest on the device JAX computes on by default."""
    return network.clone(winograd=prefers_winograd(jax.default_backend(), network.dtype))


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
        return cls(_for_this_backend(network_of(params)), params, dict(metadata or {}))

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
        return dataclasses.replace(self, network=_for_this_backend(self.network.clone(dtype=dtype)))

    def __call__(self, lr: jax.Array) -> jax.Array:
        """Upscales a batch; a pure function, to be used under `jax.jit` and other transformations.

        Args:
          lr: float32 `[N, H, W, 3]`, RGB on 0..255.

        Returns:
          float32 `[N, scale · H, scale · W, 3]` on the same range, neither clipped nor rounded.
        """
        return self.inference_network.apply({"params": self.folded}, lr)  # type: ignore[return-value]

    def upscaler(
        self,
        *,
        memory: int | None = None,
        tile: int | None = None,
        ensemble: bool = False,
        device: jax.Device | None = None,
        verbose: bool = False,
    ) -> Upscaler:
        """Returns an upscaler of this model with other than the default options, see `Upscaler`."""
        device = device or jax.local_devices()[0]
        network = self.inference_network.clone(winograd=prefers_winograd(device.platform, self.network.dtype))
        return Upscaler(
            network, self.folded, memory=memory, tile=tile, ensemble=ensemble, device=device, verbose=verbose
        )

    @functools.cached_property
    def _upscaler(self) -> Upscaler:
        return self.upscaler()

    def upscale(self, image: np.ndarray) -> np.ndarray:
        """Upscales one image of any size, exactly and in the memory there is; see `a2f_jax.Upscaler`.

        Args:
          image: `[H, W, 3]`, RGB; uint8, uint16 (0..65535) or float32 on 0..255.

        Returns:
          `[scale · H, scale · W, 3]` of the same dtype; integers are rounded to nearest.

        Raises:
          ValueError: the image has another shape or dtype.
        """
        return self._upscaler.upscale(image)


def load(weights: str | os.PathLike[str], scale: int | None = None) -> Model:
    """Loads weights; the variant and the scale come from the weights themselves.

    Args:
      weights: a `.safetensors` file, the authors' `.pt` or `.pth`, the work folder of a training run (its best
        checkpoint) or one checkpoint in it, or the name of weights that come with the package, such as `"a2f-sd-x4"`
        or, with a scale, `"a2f-sd"`.
      scale: the scale that the weights must have.

    Returns:
      The model, ready to be called.

    Raises:
      UserError: there are no such weights, they are damaged, of another scale, or hold another architecture.
    """
    name = f"{weights}-x{scale}" if scale and str(weights) in VARIANTS else str(weights)
    path = shipped_weights().get(name) or pathlib.Path(weights)
    if not path.exists():
        raise UserError(
            f"no weights at {name}: name a .safetensors or .pt file, a training run's folder, or one of "
            f"{', '.join(shipped_weights())}"
        )
    try:
        model = Model.from_params(*read_weights(path))
    except ValueError as error:
        raise UserError(f"{path} does not hold A2F weights: {error}") from error
    if scale and model.scale != scale:
        raise UserError(f"{path} upscales by {model.scale}, not by {scale}: choose other weights")
    return model


def load_labelled(weights: Sequence[str | os.PathLike[str]]) -> dict[str, Model]:
    """Loads several weights.

    Args:
      weights: see `load`.

    Returns:
      The models by label: the last part of each path, or as many more of its parts as tell all of them apart.

    Raises:
      UserError: some are named twice or cannot be loaded.
    """
    paths = [pathlib.Path(path) for path in weights]
    for depth in range(1, max((len(path.parts) for path in paths), default=0) + 1):
        labels = ["/".join(path.parts[-depth:]) for path in paths]
        if len({*labels}) == len(labels):
            return {label: load(path) for label, path in zip(labels, paths, strict=True)}
    if paths:
        raise UserError(f"--weights {' '.join(map(str, paths))}: name each once")
    return {}


def save(model: Model, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a model's weights as safetensors, with variant and scale in the metadata.

    Args:
      model: the model to keep.
      path: the file, ending in `.safetensors`; replaced at once, never left half-written.
      metadata: added to the model's own.

    Raises:
      UserError: the file has another suffix or cannot be written.
    """
    about = {**model.metadata, **(metadata or {}), "variant": model.variant, "scale": str(model.scale)}
    write_safetensors(path, model.params, about)
