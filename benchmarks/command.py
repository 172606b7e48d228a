"""The command `a2f` of the Python that runs a benchmark, which need not be on the path."""

import pathlib
import sys

A2F = [sys.executable, "-c", "import sys; from a2f_jax.cli import main; sys.exit(main())"]
CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
