"""Training of the networks that A2F is compared with, `peers.py:NAME_x{2,3,4}`, such as `peers.py:carn_m_x4`.

The names are those that `a2f models` lists, with `_` or `-`. All of them train as A2F does (`configs/a2f.py`), which
makes results comparable, but with a smaller learning rate, because few of them are weight-normalized. Networks for luma
are trained on Y of the same patches. Any setting can be overridden:

a2f train --config configs/peers.py:vdsr_x2 --config.data.name=my_photos --workdir runs/vdsr_x2
"""

from ml_collections import ConfigDict

from a2f_jax.configs import a2f
from a2f_jax.models.registry import PEERS, closest_peers


def get_config(run: str = "carn_m_x4") -> ConfigDict:
    """Returns the settings of a run.

    Args:
      run: network and scale, such as `"carn_m_x4"`.

    Raises:
      ValueError: the network does not exist, or not at this scale.
    """
    written, _, scale = run.rpartition("_x")
    name = written.replace("_", "-")
    if name not in PEERS:
        close = [
            f"{other.replace('-', '_')}_x{scale if scale in map(str, PEERS[other].scales) else PEERS[other].scales[-1]}"
            for other in closest_peers(name)
        ]
        remedy = f"did you mean {' or '.join(close)}?" if close else "use NAME_xSCALE with a name that a2f models lists"
        raise ValueError(f"run {run!r} does not exist: {remedy}")
    if scale not in map(str, PEERS[name].scales):
        raise ValueError(
            f"run {run!r} does not exist: {PEERS[name].title} upscales by {' or '.join(map(str, PEERS[name].scales))}"
        )
    config = a2f.get_config(f"sd_x{scale}")
    config.model = ConfigDict({"name": name, "scale": int(scale), "dtype": config.model.dtype})
    config.optimizer.learning_rate = 1e-4
    return config
