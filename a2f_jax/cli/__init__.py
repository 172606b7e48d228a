"""The command line `a2f`, with one module per command, which parses its arguments, calls the library and prints."""

from a2f_jax.cli.main import main

__all__ = ["main"]
