"""Training and evaluation data: datasets, the decoded cache, patches, and MATLAB's bicubic resize."""

from a2f_jax.data.cache import Cache, open_cache
from a2f_jax.data.datasets import open_pairs
from a2f_jax.data.locations import default_data_dir
from a2f_jax.data.matlab_bicubic import matlab_bicubic
from a2f_jax.data.patches import Patches
from a2f_jax.data.preparation import prepare
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
