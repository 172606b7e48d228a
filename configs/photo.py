"""Weights for photographs as they are: compressed as JPEG, slightly blurred and noisy. `photo.py:{s,sd,m,l}_x{2,3,4}`.

LR images are made of HR images in the training step, and the held-out images that are validated are degraded in the
same way. The runs start from the shipped weights for clean images, where these exist. For example:

a2f data prepare photos --source ~/Pictures --data-dir my_photos
a2f train --config configs/photo.py:sd_x4 --config.data.dir=my_photos --workdir runs/photo_x4
"""

from ml_collections import ConfigDict

from a2f_jax.configs import a2f
from a2f_jax.weights import shipped_weights


def get_config(run: str = "sd_x4") -> ConfigDict:
    """Returns the settings of a run; `run` is variant and scale, such as `"sd_x4"`."""
    config = a2f.get_config(run)
    config.data.degradation = "photo"
    weights = f"{config.model.variant}-x{config.model.scale}"
    config.init = weights if weights in shipped_weights() else ""
    config.steps = 10_000
    config.data.name = "photos"
    config.data.patch_size = 24
    config.optimizer.name = "muon"
    config.optimizer.schedule = "cosine"
    config.optimizer.learning_rate = 1e-2
    config.optimizer.warmup = 200
    config.ema_decay = 0.998
    config.checkpoint_every = 1_000
    config.validate_every = 1_000
    config.validation_images = 24
    return config
