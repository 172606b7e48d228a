"""Settings of a run that takes seconds; the argument is the folder that contains the prepared dataset `tiny`."""

from a2f_jax.configs import a2f


def get_config(data_dir):
    config = a2f.get_config("sd_x2")
    config.model.features, config.model.blocks = 8, 2
    config.data.name, config.data.dir, config.data.patch_size = "tiny", data_dir, 12
    config.batch_size = 8
    config.steps = 8
    config.ema_decay = 0.9
    config.log_every, config.checkpoint_every, config.validate_every = 2, 4, 4
    return config
