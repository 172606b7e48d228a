"""JAX's persistent cache of compiled programs."""

import contextlib
import os

import jax

from a2f_jax.errors import UserError
from a2f_jax.files import user_cache_folder

# So low that small networks are cached too: JAX's own thresholds are made for programs that compile for seconds.
_THRESHOLDS = {"jax_persistent_cache_min_compile_time_secs": 0.1, "jax_persistent_cache_min_entry_size_bytes": 0}


def enable_compilation_cache() -> None:
    """Enables JAX's persistent compilation cache, so that later processes need not compile the same programs again.

    The cache is `a2f_jax/compiled` in the user's cache folder (`~/.cache` on Linux). Settings of the user take
    precedence: a folder in `JAX_COMPILATION_CACHE_DIR` or `jax.config`, and thresholds in their environment variables.

    This changes the configuration of JAX for the whole process, so the commands call it, and library functions do not.
    """
    if not jax.config.values["jax_compilation_cache_dir"]:
        with contextlib.suppress(UserError):  # without a home folder, there is no cache
            jax.config.update("jax_compilation_cache_dir", str(user_cache_folder() / "compiled"))
    for name, value in _THRESHOLDS.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
