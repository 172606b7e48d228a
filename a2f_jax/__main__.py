"""`python -m a2f_jax`, the same as `a2f`, for the Python that is named."""

import sys

from a2f_jax.cli.main import program

sys.exit(program())
