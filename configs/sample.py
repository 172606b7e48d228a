"""The quick start: trains A2F-SD ×4 on the `sample` dataset in about two minutes on two CPU cores."""

from ml_collections import ConfigDict

from a2f_jax.configs import a2f


def get_config() -> ConfigDict:
    """Returns the settings of the run."""
    config = a2f.get_config("sd_x4")
    config.steps = 500
    config.data.name = "sample"
    config.data.patch_size = 24
    config.optimizer.schedule = "cosine"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 20
    config.ema_decay = 0.99
    config.log_every = 25
    config.validate_every = 250
    return config
