"""Reads and writes image files."""

from a2f_jax.images.decoding import Picture
from a2f_jax.images.reading import read_picture, read_rgb
from a2f_jax.images.writing import write_picture, write_rgb

__all__ = ["Picture", "read_picture", "read_rgb", "write_picture", "write_rgb"]
