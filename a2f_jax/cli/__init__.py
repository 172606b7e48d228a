"""The command `a2f`: parses, calls, prints; a module for each of its commands."""

from a2f_jax.cli.main import main

__all__ = ["main"]
