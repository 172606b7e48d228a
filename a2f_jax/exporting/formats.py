"""Exports models: the suffix of the file decides the format."""

import dataclasses
import importlib.util
import os
import pathlib
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from a2f_jax import __version__
from a2f_jax.catalog import EXPORT_FORMATS
from a2f_jax.errors import UserError
from a2f_jax.exporting.onnx_translation import UntranslatableError
from a2f_jax.files import as_path, check_file_writable, replacing
from a2f_jax.model import Model, check_model

InputType = Literal["float32", "uint8"]
"""Data type of the input and the output of an exported model."""

PLATFORMS = ("tpu", "cuda", "cpu")
"""Platforms that a StableHLO program is lowered for, all in one file."""

_DIMENSIONS = "batch, height, width"
_DTYPES = {".onnx": ("float32", "float16"), ".stablehlo": ("float32", "float16", "bfloat16")}


def check_export(path: pathlib.Path, dtype: Any) -> str:
    """Checks, before any work is done, that a model can be exported to a file.

    Args:
      path: the file.
      dtype: data type of the computation.

    Returns:
      The suffix, one of `EXPORT_FORMATS`.

    Raises:
      UserError: the suffix is another one, the format does not support the data type, the package that writes it is
        not installed, or the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in EXPORT_FORMATS:
        choices = " or ".join(f"{name} ({about.title})" for name, about in EXPORT_FORMATS.items())
        raise UserError(f"cannot export to {path}: the file name must end in {choices}")
    if (name := jnp.dtype(dtype).name) not in _DTYPES[suffix]:
        raise UserError(
            f"{suffix} files cannot compute in {name}: choose {' or '.join(_DTYPES[suffix])}", parameter="dtype"
        )
    if importlib.util.find_spec(EXPORT_FORMATS[suffix].library) is None:
        raise UserError(f"{suffix} files require an optional package: pip install 'a2f_jax[export]'")
    check_file_writable(path)
    return suffix


def export(model: Model, path: str | os.PathLike[str], *, input: InputType = "float32", dtype: Any = None) -> None:
    """Writes a model to a file that runs without this package, with dynamic batch size, height, and width.

    The input `lr` is `[N, H, W, 3]`, RGB in 0..255, and the output `sr` is `[N, scale · H, scale · W, 3]`, both of type
    `input`. As in `Model.upscale`, float32 is neither rounded nor clipped, and uint8 is rounded to nearest and clipped.
    The image is computed as a whole, so memory grows with it. Weight normalization is folded.

    Args:
      model: the model, as returned by `load`.
      path: the file to write. The suffix selects the format: `.onnx`, a graph of opset 17 for ONNX Runtime and others;
        or `.stablehlo`, a program for TPUs, NVIDIA GPUs, and CPUs, to be read by `jax.export.deserialize`. It may be in
        a bucket (`gs://...`); a leading `~` is expanded. It is written atomically; an existing file is replaced.
      input: data type of the input, and of the output: `"float32"` or `"uint8"`.
      dtype: data type of the computation: float32 or float16, in `.stablehlo` also bfloat16. The default is that of the
        model. float16 also halves the size of an ONNX file.

    Raises:
      TypeError: `model` is not a `Model`.
      ValueError: `input` is another data type.
      UserError: the file has another suffix or cannot be written, the format does not support `dtype`, an optional
        package is missing, or the network cannot be exported.
    """
    check_model(model)
    path = as_path(path)
    dtype = jnp.dtype(model.network.dtype if dtype is None else dtype)
    suffix = check_export(path, dtype)
    if input not in get_args(InputType):
        raise ValueError(f"input is {input!r}, but must be one of {', '.join(get_args(InputType))}")
    model = dataclasses.replace(model, network=model.network.clone(dtype=dtype))
    # Mistakes of a network of one's own are raised here, and not taken for those below.
    jax.eval_shape(_function(model, input), jax.ShapeDtypeStruct((1, 64, 64, 3), input))
    write = {".onnx": _onnx, ".stablehlo": _stablehlo}[suffix]
    try:
        data = write(model, input)
    except UntranslatableError as error:
        raise UserError(f"cannot export {model.variant} to {path}: {error}. Export it to .stablehlo") from error
    except (TypeError, ValueError, jax.errors.InconclusiveDimensionOperation) as error:  # a symbol is used as a number
        raise UserError(
            f"cannot export {model.variant} to {path}: part of its program depends on the image size, such as the "
            f"weights of an interpolation ({_first_sentence(error)}). Upscale with a2f_jax, or export weights of "
            "another network"
        ) from error
    with replacing(path) as file:
        file.write(data)


def _first_sentence(error: Exception) -> str:
    return str(error).strip().split("\n")[0].split(". ")[0].rstrip(".:")


def _function(model: Model, input: InputType) -> Any:
    def upscale(lr: jax.Array) -> jax.Array:
        sr = model(lr)
        return sr if input == "float32" else jnp.clip(jnp.round(sr), 0, 255).astype(jnp.uint8)

    return upscale


def _lr(input: InputType) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((*jax.export.symbolic_shape(_DIMENSIONS), 3), input)


def _onnx(model: Model, input: InputType) -> bytes:
    from a2f_jax.exporting.onnx_graph import onnx_graph

    about = {
        **model.metadata,
        "version": f"a2f_jax {__version__}",
        "variant": model.variant,
        "scale": str(model.scale),
        "layout": "NHWC",
        "colors": "RGB",
        "range": "0..255",
    }
    return onnx_graph(jax.make_jaxpr(_function(model, input))(_lr(input)), about).SerializeToString()


def _stablehlo(model: Model, input: InputType) -> bytes:
    function = jax.jit(_function(model, input))
    return bytes(jax.export.export(function, platforms=PLATFORMS)(_lr(input)).serialize())
