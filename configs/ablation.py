"""The ablations of the paper.

`ablation.py:{baseline,baseline_mp,noca,noca_mp}` modify the network of A2F-L ×2 (`a2f.py:l_x2`), and
`ablation.py:{head1,head5,head7}` change the head of A2F-SD ×4 (`a2f.py:sd_x4`). All other settings are the same.
"""

from ml_collections import ConfigDict

from a2f_jax.configs import a2f
from a2f_jax.models.a2f import ABLATIONS

_HEAD_KERNELS = {"head1": 1, "head5": 5, "head7": 7}


def get_config(name: str = "baseline") -> ConfigDict:
    """Returns the settings of an ablation.

    Args:
      name: the name of the ablation, such as `"noca_mp"` or `"head5"`.

    Raises:
      ValueError: the ablation does not exist.
    """
    if name in ABLATIONS:
        config = a2f.get_config("l_x2")
        config.model.update(ABLATIONS[name])
    elif name in _HEAD_KERNELS:
        config = a2f.get_config("sd_x4")
        config.model.head_kernel = _HEAD_KERNELS[name]
    else:
        raise ValueError(f"ablation {name!r} does not exist: use one of {', '.join([*ABLATIONS, *_HEAD_KERNELS])}")
    return config
