"""Training and evaluation data: datasets, the decoded cache, patches, and MATLAB's bicubic resize."""

from a2f_jax.data.cache import Cache, open_cache
from a2f_jax.data.datasets import default_data_dir, open_pairs, prepare
from a2f_jax.data.matlab_bicubic import matlab_bicubic
from a2f_jax.data.patches import Patches
from a2f_jax.data.sources import Pair

__all__ = [
    "Cache",
    "Pair",
    "Patches",
    "default_data_dir",
    "matlab_bicubic",
    "open_cache",
    "open_pairs",
    "prepare",
]
