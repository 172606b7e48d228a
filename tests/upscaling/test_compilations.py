"""Compiled programs are reused by later processes."""

import os
import re
import subprocess
import sys

PROGRAM = """
import numpy as np, jax
from a2f_jax.compilation_cache import enable_compilation_cache
from a2f_jax.upscaling.compilations import count_compilations
from a2f_jax.models.a2f import A2F
from a2f_jax.model import Model
network = A2F(scale=2, features=4, blocks=1)
shapes = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, 8, 8, 3)))["params"]
model = Model(network, jax.tree.map(lambda x: np.ones(x.shape, np.float32), shapes))
enable_compilation_cache()
with count_compilations() as count:
    model.upscale(np.zeros((8, 8, 3), np.uint8))
print(count.programs, count.cached)
"""


def test_a_second_process_reads_the_programs_that_the_first_compiled(tmp_path):
    env = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    env["XDG_CACHE_HOME"] = str(tmp_path)
    counts = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True)
        counts.append(tuple(map(int, re.findall(r"\d+", done.stdout))))
    assert list((tmp_path / "a2f_jax" / "compiled").iterdir())
    assert counts[0][1] == 0
    assert counts[1][0] == counts[0][0] <= 8
    assert counts[1][1] > 0
