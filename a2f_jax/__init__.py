"""A2F: lightweight image super-resolution with attentive auxiliary features, in JAX and Flax.

The public API is what this module exports, and the configs in `a2f_jax.configs`; every other module is internal and may
change without notice.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from a2f_jax.data.cache import open_cache
    from a2f_jax.data.datasets import open_pairs
    from a2f_jax.data.matlab_bicubic import matlab_bicubic
    from a2f_jax.data.patches import Patches
    from a2f_jax.data.preparation import prepare
    from a2f_jax.errors import UserError
    from a2f_jax.evaluation.benchmark import evaluate
    from a2f_jax.evaluation.metrics import psnr_y, ssim_y
    from a2f_jax.exporting.formats import export
    from a2f_jax.model import Model, average, load, save
    from a2f_jax.models.a2f import A2F
    from a2f_jax.training.loop import TrainResult, train
    from a2f_jax.upscaling.upscaler import Upscaler

__all__ = [
    "A2F",
    "Model",
    "Patches",
    "TrainResult",
    "Upscaler",
    "UserError",
    "average",
    "evaluate",
    "export",
    "load",
    "matlab_bicubic",
    "open_cache",
    "open_pairs",
    "prepare",
    "psnr_y",
    "save",
    "ssim_y",
    "train",
]

_HOMES = {
    "A2F": "a2f_jax.models.a2f",
    "Model": "a2f_jax.model",
    "Patches": "a2f_jax.data.patches",
    "TrainResult": "a2f_jax.training.loop",
    "Upscaler": "a2f_jax.upscaling.upscaler",
    "UserError": "a2f_jax.errors",
    "average": "a2f_jax.model",
    "evaluate": "a2f_jax.evaluation.benchmark",
    "export": "a2f_jax.exporting.formats",
    "load": "a2f_jax.model",
    "matlab_bicubic": "a2f_jax.data.matlab_bicubic",
    "open_cache": "a2f_jax.data.cache",
    "open_pairs": "a2f_jax.data.datasets",
    "prepare": "a2f_jax.data.preparation",
    "psnr_y": "a2f_jax.evaluation.metrics",
    "save": "a2f_jax.model",
    "ssim_y": "a2f_jax.evaluation.metrics",
    "train": "a2f_jax.training.loop",
}


def __getattr__(name: str) -> Any:
    # Imported on first use (PEP 562), so that `import a2f_jax` and `a2f --help` do not wait for JAX.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
