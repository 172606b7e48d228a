"""The weights of `a2f upscale`: the flags that select them, and how they are loaded."""

import argparse
import functools
from typing import TYPE_CHECKING, Any

from a2f_jax.catalog import DEFAULT_SCALE, SCALES
from a2f_jax.cli.commands import WEIGHTS_HELP
from a2f_jax.errors import UserError
from a2f_jax.upscaling.choice import CLEAN_FROM

if TYPE_CHECKING:
    from a2f_jax.model import Model
    from a2f_jax.upscaling.choice import Choice

_MODEL = "a2f-sd"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--model` and `--weights`."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--model",
        help=f"weights that come with the package, as listed by `a2f models`, for all images (default: {_MODEL}, but "
        f"for JPEG of a quality below {CLEAN_FROM} its weights for JPEG photographs, where there are any of the scale)",
    )
    group.add_argument("--weights", metavar="PATH", help=f"other weights for all images: {WEIGHTS_HELP}")


def weights_of(args: argparse.Namespace) -> str:
    """Returns the weights that the arguments select, as `load` takes them; by default those for clean images.

    Raises:
      UserError: the selected variant has no weights for the scale.
    """
    from a2f_jax.models.a2f import VARIANTS
    from a2f_jax.models.registry import PEERS
    from a2f_jax.weights import shipped_weights

    if args.weights is not None:
        return args.weights
    model = args.model or _MODEL
    shipped, scale = shipped_weights(), _scale_for(args.scale or DEFAULT_SCALE)
    if model in shipped or model in PEERS:
        return model
    # a2f-sd stands for a2f-sd-x4, and a2f-sd-photo, which the page of `a2f serve` lists, for a2f-sd-x4-photo.
    variant, _, suffix = model.rpartition("-")
    by_scale = {s: {f"{model}-x{s}", f"{variant}-x{s}-{suffix}"} & {*shipped} for s in SCALES}
    if by_scale[scale]:
        return by_scale[scale].pop()
    if scales := [f"×{s}" for s in SCALES if by_scale[s]]:
        raise UserError(f"{model} has no weights for ×{scale}, only for {' and '.join(scales)}: choose other weights")
    return f"{model}-x{scale}" if model in VARIANTS else model  # which nothing ships with, as the error will say


def _scale_for(factor: float) -> int:
    return next((scale for scale in SCALES if scale >= factor), SCALES[-1])


def default_weights(scale: int) -> list[str]:
    """Returns the shipped weights of a scale that are used by default: for clean images, and for JPEG photographs."""
    from a2f_jax.weights import shipped_weights

    clean = f"{_MODEL}-x{scale}"
    return [clean, *({f"{clean}-photo"} & {*shipped_weights()})]


def load_selected(args: argparse.Namespace) -> "Model":
    """Loads the weights that `weights_of` returns, to compute in the data type of `--dtype`.

    Raises:
      UserError: the weights cannot be loaded.
    """
    from a2f_jax.model import load

    weights = weights_of(args)
    try:
        return load(weights).with_dtype(args.dtype)
    except UserError as error:
        if error.parameter != "scale":
            raise
        if args.scale in SCALES:
            return load(weights, int(args.scale)).with_dtype(args.dtype)
        if not args.scale and not args.size:
            raise
        # Weights for another scale would give a wrong image, so the scale is not guessed from the factor.
        raise UserError(
            f"{error}. For other factors and for --size, first run a2f convert {weights} FILE.safetensors --scale SCALE"
        ) from error


def choice_of(args: argparse.Namespace, **options: Any) -> "Choice":
    """Returns the weights to choose from for each image. Those that depend on the image are loaded when it needs them.

    Args:
      args: the parsed arguments.
      **options: arguments of `Model.upscaler`.

    Raises:
      UserError: the selected weights cannot be loaded, or are for another scale than `--scale`.
    """
    from a2f_jax.model import load
    from a2f_jax.upscaling.choice import Candidate, Choice

    weights = weights_of(args)
    if args.model is not None or args.weights is not None:
        model = load_selected(args)
        # For each of these scales there are weights that do it better.
        if args.scale in SCALES and args.scale != model.scale:
            raise UserError(
                f"{weights} is for --scale {model.scale}, not {args.scale:g}: choose weights for ×{args.scale:g}"
            )
        return Choice(model.scale, Candidate(weights, functools.partial(model.upscaler, **options)))

    def candidate(name: str) -> Candidate:
        loaded = functools.cache(lambda: load(name).with_dtype(args.dtype))  # once for all devices
        return Candidate(name, lambda **device: loaded().upscaler(**options, **device))

    scale = _scale_for(args.scale or DEFAULT_SCALE)
    return Choice(scale, *map(candidate, default_weights(scale)))
