"""A2F: lightweight image super-resolution with attentive auxiliary features, in JAX and Flax."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Model", "load"]

if TYPE_CHECKING:
    from a2f_jax.models.model import Model
    from a2f_jax.models.weights import load


def __getattr__(name: str) -> Any:
    """Imports JAX when it is first needed, so that `a2f --help` answers at once."""
    if name == "load":
        from a2f_jax.models.weights import load

        return load
    if name == "Model":
        from a2f_jax.models.model import Model

        return Model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
