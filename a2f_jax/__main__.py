"""`python -m a2f_jax`: the command `a2f`, run by a chosen Python interpreter."""

import sys

from a2f_jax.cli.main import program

sys.exit(program())
