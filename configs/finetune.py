"""Fine-tuning of the shipped weights on your own photographs, such as `finetune.py:sd_x4`.

`a2f models` lists the shipped weights. For other variants and scales, pass weights of your own as `--config.init`.

See docs/weights.md. For example:

a2f data prepare photos --source ~/Pictures/birds --validation 10 --data-dir my_photos
a2f train --config configs/finetune.py:sd_x4 --config.data.dir=my_photos --workdir runs/birds
"""

from ml_collections import ConfigDict

from a2f_jax.configs import a2f


def get_config(run: str = "sd_x4") -> ConfigDict:
    """Returns the settings of a run; `run` is variant and scale, such as `"sd_x4"`."""
    config = a2f.get_config(run)
    config.init = f"{config.model.variant}-x{config.model.scale}"
    config.steps = 1_000
    config.data.name = "photos"
    config.data.patch_size = 24
    config.optimizer.schedule = "cosine"
    config.optimizer.learning_rate = 2e-4
    config.optimizer.warmup = 50
    config.ema_decay = 0.99
    config.validate_every = 250
    return config
