"""A2F: lightweight image super-resolution with attentive auxiliary features, in JAX and Flax."""

__version__ = "0.1.0"
