"""`Model`, a network with its weights, and the functions that load and save it."""

import contextlib
import dataclasses
import difflib
import functools
import itertools
import numbers
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from a2f_jax.catalog import DEFAULT_SCALE, SCALES
from a2f_jax.errors import UserError
from a2f_jax.files import as_path, check_regular, exists, is_folder
from a2f_jax.models.a2f import (
    A2F,
    VARIANTS,
    Params,
    check_shapes,
    fold_weight_norm,
    infer_network,
    is_weight_normalized,
    variant_of,
)
from a2f_jax.models.convolution import prefers_winograd
from a2f_jax.models.registry import PEERS, ScaleError, name_of
from a2f_jax.staging import local_copy
from a2f_jax.upscaling.upscaler import Edge, Upscaler, chosen_device
from a2f_jax.weights import read_weights, shipped_weights, write_safetensors

Network = Any
"""A Flax module `[N, H, W, 3]` → `[N, scale · H, scale · W, 3]` with the attributes `scale` and `dtype`."""


def _check_metadata(metadata: Mapping[str, str]) -> None:
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata must be strings, as safetensors files store them: not {key!r}: {value!r}")
        try:
            (key + value).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"metadata must be valid Unicode: not {key!r}: {value!r}") from error


def _in_float32(params: Params) -> Params:
    return jax.tree.map(lambda x: x if x.dtype == np.float32 else x.astype(np.float32), params)


@dataclasses.dataclass(frozen=True, eq=False)  # compared and hashed by identity, because arrays are not hashable
class Model:
    """A network with its weights.

    Attributes:
      network: the Flax module, in the weight-normalized form that is trained: an `A2F`, or one of the networks that it
        is compared with.
      params: the float32 parameters of `network`.
      metadata: information about the weights, such as the training step and the training data.
    """

    network: Network
    params: Params = dataclasses.field(repr=False)  # hundreds of lines in a notebook
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_metadata(self.metadata)

    def __getstate__(self) -> dict[str, Any]:
        # Without what is cached: an upscaler belongs to a device, and cannot be pickled.
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_params(cls, params: Params, metadata: Mapping[str, str] | None = None) -> "Model":
        """Creates a model from a parameter tree.

        Args:
          params: the parameters of an `A2F`, weight-normalized, which determine its variant and scale, or of another
            network that the metadata name. Those of other data types are converted to float32.
          metadata: information about the weights. `"network"` and `"scale"` name another network than A2F.

        Raises:
          TypeError: the metadata are not strings.
          ValueError: the tree is not that of the network; the message names the first parameter that does not fit.
        """
        metadata = dict(metadata or {})
        if {*params} == {"params"}:
            raise ValueError("these are the variables of a network: pass its parameters, `variables['params']`")
        if "network" not in metadata:
            return cls(infer_network(params), _in_float32(params), metadata)
        if metadata["network"] not in PEERS:
            raise ValueError(f"there is no network {metadata['network']!r}: update a2f_jax, or use other weights")
        peer = PEERS[metadata["network"]]
        if metadata.get("scale") not in [str(scale) for scale in peer.scales]:
            raise ValueError(
                f"{peer.title} exists for ×{', ×'.join(map(str, peer.scales))}, but the metadata have scale "
                f"{metadata.get('scale')!r}: use other weights"
            )
        network = peer.make(int(metadata["scale"]))
        check_shapes(network, params)
        return cls(network, _in_float32(params), metadata)

    @property
    def variant(self) -> str:
        """The variant's name, such as `"a2f-sd"`, or the name of another network."""
        if isinstance(self.network, A2F):
            return variant_of(self.network)
        return name_of(self.network) or type(self.network).__name__.lower()

    @property
    def scale(self) -> int:
        """The upscaling factor."""
        return self.network.scale

    @functools.cached_property
    def folded(self) -> Params:
        """The parameters of `inference_network`: every weight-normalized kernel computed once."""
        if self.inference_network is self.network:
            return self.params
        # Evaluated eagerly even inside a jitted function, where a tracer would be cached otherwise.
        with jax.ensure_compile_time_eval():
            return jax.jit(fold_weight_norm)(self.params)  # one program instead of one per operation

    @functools.cached_property
    def inference_network(self) -> Network:
        """The network that `folded` are the parameters of: `network` without weight normalization."""
        # A network of one's own may normalize its weights in another way.
        if not getattr(self.network, "weight_norm", False) or not is_weight_normalized(self.params):
            return self.network
        return self.network.clone(weight_norm=False)

    def with_dtype(self, dtype: Any) -> "Model":
        """Returns the same model, computing in another data type; parameters stay float32.

        Args:
          dtype: float32 or bfloat16.

        Raises:
          ValueError: `dtype` is another data type.
        """
        try:
            known = jnp.dtype(dtype) in (jnp.float32, jnp.bfloat16)
        except TypeError:  # no data type at all
            known = False
        if not known:
            raise ValueError(f"dtype is {dtype!r}, but must be float32 or bfloat16")
        return dataclasses.replace(self, network=self.network.clone(dtype=dtype))

    def __call__(self, lr: jax.Array) -> jax.Array:
        """Upscales a batch. This is a pure function that works under `jax.jit`, `jax.vmap` and `jax.grad`.

        The program depends on no device and can be exported for any of them. `upscale` is faster on a CPU, where it
        uses Winograd's algorithm. Matrix products have full precision, also where the default of JAX is lower.

        Args:
          lr: `[N, H, W, 3]`, RGB in 0..255, of any real dtype.

        Returns:
          float32 `[N, scale · H, scale · W, 3]` in the same range, neither clipped nor rounded.
        """
        with jax.default_matmul_precision("highest"):
            return self.inference_network.apply({"params": self.folded}, lr)

    def upscaler(
        self,
        *,
        memory: int | None = None,
        disk: int | None = None,
        tile: int | None = None,
        ensemble: bool = False,
        edge: Edge = "zero",
        device: jax.Device | None = None,
        concurrent: int = 1,
        verbose: bool = False,
    ) -> Upscaler:
        """Returns an `Upscaler` of this model with the given options.

        Args:
          memory: memory to use, in bytes; by default three quarters of what is free.
          disk: largest size in bytes of the temporary file that is used when the memory is not sufficient; by default
            16 GB, or half of the free space if that is less.
          tile: side of the tiles in LR pixels; by default it follows from the memory and the device.
          ensemble: whether to average the results of the 8 flips and transpositions, at 8 times the cost.
          edge: what the network sees beyond the border of the image: `"zero"` padding as in the paper, or the image
            itself, mirrored (`"reflect"`), for flat and saturated colors at the border.
          device: the device to compute on; by default JAX's first local device.
          concurrent: number of upscalers that run at the same time, one on each device, and share the memory of the
            host.
          verbose: whether to print how each image is computed to standard error.

        Raises:
          TypeError: `device` is not a device.
          ValueError: another option has a value that is not valid.
        """
        device = chosen_device(device)
        network = self.inference_network
        if isinstance(network, A2F):
            network = network.clone(winograd=prefers_winograd(device.platform, network.dtype))
        with jax.transfer_guard("allow"):  # the weights are meant to be moved
            return Upscaler(
                network,
                self.folded,
                memory=memory,
                disk=disk,
                tile=tile,
                ensemble=ensemble,
                edge=edge,
                device=device,
                concurrent=concurrent,
                verbose=verbose,
            )

    @functools.cached_property
    def _upscaler(self) -> Upscaler:
        return self.upscaler()

    @overload
    def upscale(self, image: np.ndarray | jax.Array) -> np.ndarray: ...

    @overload
    def upscale(self, image: Image.Image) -> Image.Image: ...

    def upscale(self, image: np.ndarray | jax.Array | Image.Image) -> np.ndarray | Image.Image:
        """Upscales one image of any size. Large images are computed in tiles that fit into memory, without seams.

        Args:
          image: an array `[H, W, 3]`, RGB; uint8, uint16 (0..65535) or float32 in 0..255. Or a PIL image of at least
            8×8 pixels and mode 1, L, LA, P, PA, RGB, RGBA, RGBX, YCbCr or I;16.

        Returns:
          For an array, an array `[scale · H, scale · W, 3]` of the same dtype; integers are rounded to nearest and
          clipped, float32 is neither rounded nor clipped. For a PIL image, a PIL image of mode L, LA, RGB, RGBA or
          I;16. Grayscale and transparency are kept. As with `Image.resize`, `info` is that of the original, and an EXIF
          orientation is not applied.

        Raises:
          TypeError: the image is a file name.
          ValueError: the array has another shape or dtype, or the PIL image another mode.
          UserError: the PIL image is too small, the memory is too small, or the result is not finite.
        """
        return self._upscaler.upscale(image)


def load(weights: str | os.PathLike[str], scale: int | None = None) -> Model:
    """Loads a model. The variant and the scale are recognized from the weights.

    Args:
      weights: a `.safetensors` file, a `.pt`, `.pth` or `.npz` file with the tensors that the authors of A2F or of a
        network it is compared with published, the work folder of a training run (its best checkpoint), one checkpoint
        in it, or the name of weights that ship with the package, such as
        `"a2f-sd-x4"`. A variant, such as `"a2f-sd"`, stands for its weights of the given scale, or ×4. Files and
        folders may be in a bucket (`gs://...`). In a path, a leading `~` is expanded to the home folder.
      scale: the scale that the weights must have, or None for any. Published weights that serve several scales, or do
        not tell theirs, need it.

    Returns:
      The model, ready to be called.

    Raises:
      UserError: the weights do not exist, are damaged, have another scale, or belong to another architecture.
      ValueError: `scale` is not 2, 3 or 4.
    """
    if scale is not None and not (isinstance(scale, numbers.Integral) and scale in SCALES):
        raise ValueError(f"scale is {scale!r}, but must be one of {', '.join(map(str, SCALES))}")
    name = os.fspath(weights)
    if name in VARIANTS:
        name = f"{name}-x{scale or DEFAULT_SCALE}"
    path = shipped_weights().get(name) or as_path(name)
    if not name or not exists(path):
        raise UserError(_no_weights(name))
    check_regular(path)
    try:
        # Orbax reads from a bucket itself.
        with contextlib.nullcontext(path) if is_folder(path) else local_copy(path) as readable:
            model = Model.from_params(*read_weights(readable, scale))
    except ScaleError as error:
        raise UserError(f"{path} cannot be used: {error}", parameter="scale") from error
    except ValueError as error:
        raise UserError(f"{path} cannot be used: {error}") from error
    if scale and model.scale != scale:
        raise UserError(f"{path} upscales by {model.scale}, not by {scale}: choose weights for ×{scale}")
    return model


def _no_weights(name: str) -> str:
    if name in PEERS:
        return (
            f"no weights of {PEERS[name].title} ship with the package: pass a file that its authors published, or "
            f"train it; `a2f info {name}` tells more"
        )
    names = [*shipped_weights(), *VARIANTS, *PEERS]
    close = difflib.get_close_matches(name.lower().replace("_", "-"), names, n=3, cutoff=0.7)
    guess = f"did you mean {' or '.join(close)}? Or " if close else ""
    return (
        f"no weights at {name or repr(name)}: {guess}pass a .safetensors, .pt, .pth or .npz file, the work folder of a "
        f"training run, or one of {', '.join(shipped_weights())}"
    )


def load_labeled(weights: Sequence[str | os.PathLike[str]], scale: int | None = None) -> dict[str, Model]:
    """Loads several models and labels them for tables and figures.

    Args:
      weights: files, folders or names, each as `load` takes it.
      scale: the scale that all of the weights must have, or None for any, as `load` takes it.

    Returns:
      The models by label: the last component of each path, or as many components as it takes to tell all apart.

    Raises:
      UserError: the same weights are given twice, or `load` fails.
    """
    paths = [pathlib.Path(path) for path in weights]
    if twice := sorted({str(path) for path in paths if paths.count(path) > 1}):
        raise UserError(f"the same weights are given twice: {', '.join(twice)}")
    depth, labels = 1, [path.name or str(path) for path in paths]
    while len({*labels}) < len(labels):  # ends, because the whole paths differ
        depth += 1
        labels = ["/".join(path.parts[-depth:]) or str(path) for path in paths]
    return {label: load(path, scale) for label, path in zip(labels, weights, strict=True)}


def load_labeled_of_any_scale(weights: Sequence[str | os.PathLike[str]]) -> dict[str, Model]:
    """Loads models of several scales as `load_labeled` does, for commands that cannot be told the scale of one."""
    try:
        return load_labeled(weights)
    except UserError as error:
        if error.parameter != "scale":
            raise
        remedy = "with a2f convert FILE FILE.safetensors --scale SCALE, and use the result"
        raise UserError(f"{error}, {remedy}") from error


def refuse_name(model: Any) -> None:
    """Checks that what has been passed as a model is not the name or the path of its weights.

    Raises:
      TypeError: it is.
    """
    if isinstance(model, str | os.PathLike):
        raise TypeError(f"expected a model, got the name of one: use a2f_jax.load({os.fspath(model)!r})")


def check_model(model: Any) -> None:
    """Checks that what has been passed as a model is a `Model`.

    Raises:
      TypeError: it is something else.
    """
    refuse_name(model)
    if not isinstance(model, Model):
        raise TypeError(f"expected a model, as a2f_jax.load returns it, got {type(model).__name__}")


def average(models: Iterable[Model]) -> Model:
    """Averages the weights of several models of the same network, each with the same weight.

    The average of late checkpoints of a run, or of runs fine-tuned from the same weights, is often better than each of
    them (Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018; Wortsman et
    al., "Model soups", ICML 2022). That of weights trained from different initializations is not.

    Args:
      models: at least two models.

    Returns:
      The model with the averaged parameters, and the metadata that all models share.

    Raises:
      TypeError: one of them is not a `Model`.
      UserError: there are fewer than two models, their networks or scales differ, or two have the same weights.
    """
    labeled = {f"model {i}": model for i, model in enumerate(models)}
    for model in labeled.values():
        check_model(model)
    return average_labeled(labeled)


# Of one model, which are not true of an average.
_OWN_METADATA = ("step", "scores", "validation_psnr", "average_of")


def _have_same_parameters(model: Model, other: Model) -> bool:
    if isinstance(model.network, A2F) and isinstance(other.network, A2F):
        # Other attributes than those in the name decide how the result is computed, but not what it is.
        return (model.variant, model.scale) == (other.variant, other.scale)
    return model.network.clone(dtype=other.network.dtype) == other.network


def average_labeled(models: Mapping[str, Model]) -> Model:
    """Averages the weights of several models as `average` does; errors name them by their labels."""
    if len(models) < 2:
        raise UserError(f"{len(models)} given, but it takes at least two weights to average")
    (label, first), *others = models.items()
    for other, model in others:
        if not _have_same_parameters(model, first):
            raise UserError(
                f"{other} is {model.variant} ×{model.scale}, but {label} is {first.variant} ×{first.scale}: average "
                "weights of one network and scale"
            )
    for (label, first_of_two), (other, second) in itertools.combinations(models.items(), 2):
        if all(map(np.array_equal, jax.tree.leaves(first_of_two.params), jax.tree.leaves(second.params))):
            raise UserError(f"{label} and {other} are the same weights: leave out one of them")
    params = jax.tree.map(
        lambda *each: np.mean(np.stack(each), 0, np.float64).astype(np.float32),
        *(flax.core.unfreeze(m.params) for m in models.values()),
    )
    shared = [item for item in first.metadata.items() if all(item in model.metadata.items() for _, model in others)]
    return Model(first.network, params, {key: value for key, value in shared if key not in _OWN_METADATA})


def save(model: Model, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a model's weights to a safetensors file, with its variant and scale in the metadata.

    Args:
      model: the model to save.
      path: the file, ending in `.safetensors`, which may be in a bucket (`gs://...`). It is written atomically; an
        existing file is replaced. A leading `~` is expanded to the home folder.
      metadata: entries to add to the model's own metadata. `"variant"`, `"scale"`, and `"network"` describe the
        network, and cannot be others.

    Raises:
      TypeError: `model` is not a `Model`, or the metadata are not strings.
      ValueError: the metadata are not valid Unicode or name another network as `"network"`; the parameters are not
        those of the network; or the network is an A2F without weight normalization, or neither an A2F nor one of the
        compared networks.
      UserError: the file has another suffix or cannot be written.
    """
    check_model(model)
    if isinstance(model.network, A2F) and not model.network.weight_norm:
        raise ValueError("folded weights cannot be saved: save the model that they were made from")
    if not isinstance(model.network, A2F) and name_of(model.network) is None:
        raise ValueError(
            f"the network {type(model.network).__name__} could not be loaded again: add it to PEERS first (see "
            "docs/extending.md), or save its `params` in another way"
        )
    _check_metadata(metadata or {})
    network = model.variant if model.variant in PEERS else None
    if (metadata or {}).get("network", network) != network:
        raise ValueError("the entry 'network' says which network the weights belong to: use another name for yours")
    check_shapes(model.network, model.params)
    about = {**model.metadata, **(metadata or {}), "variant": model.variant, "scale": str(model.scale)}
    about.pop("network", None)
    if network:
        about["network"] = network
    write_safetensors(path, model.params, about)
