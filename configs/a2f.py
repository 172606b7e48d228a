"""The paper's training runs, `a2f.py:{s,sd,m,l}_x{2,3,4}`, and our recipe, `a2f.py:sd_x4,recipe=long`.

The paper: DIV2K, HR patches of 48·scale pixels, batches of 16, L1 loss, Adam, a learning rate of 1e-3 halved every
200,000 steps. Any value can be overridden: `a2f train --config configs/a2f.py:sd_x4 --config.data.name=my_photos`.
"""

from ml_collections import ConfigDict


def get_config(run: str = "sd_x4") -> ConfigDict:
    """Returns the settings of a run such as `"sd_x4"`, variant and scale, or `"sd_x4,recipe=long"`."""
    name, _, recipe = run.partition(",recipe=")
    size, _, scale = name.partition("_x")
    if size not in ("s", "sd", "m", "l") or scale not in ("2", "3", "4") or recipe not in ("", "long"):
        raise ValueError(
            f"there is no run {run!r}: write {{s,sd,m,l}}_x{{2,3,4}}, for instance sd_x4 or sd_x4,recipe=long"
        )

    config = ConfigDict()
    config.seed = 0
    config.steps = 1_000_000
    config.batch_size = 16  # over all devices of all processes
    config.init = ""  # weights to start from: those parameters whose shapes fit; empty: random

    config.model = ConfigDict()
    config.model.variant = f"a2f-{size}"
    config.model.scale = int(scale)
    config.model.head_kernel = 3
    config.model.attention = True
    config.model.auxiliary = True
    config.model.dtype = "float32"  # of the computation; "bfloat16" is faster on accelerators
    config.model.remat = False  # compute blocks again in the backward pass, to save memory

    config.data = ConfigDict()
    config.data.name = "div2k"
    config.data.dir = ""  # of prepared datasets; empty: the default of `a2f data prepare`
    config.data.patch_size = 48  # LR pixels
    config.data.placement = "host"  # or "device": the decoded images lie in device memory and are cropped there

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"  # or "muon", which needs higher learning rates
    config.optimizer.schedule = "halving"  # or "cosine"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.halve_every = 200_000  # steps, of "halving"
    config.optimizer.warmup = 0  # steps of linear increase from 0
    config.optimizer.momentum = 0.95  # of "muon"
    config.optimizer.b1 = 0.9  # of "adam", and of what "muon" leaves to Adam
    config.optimizer.b2 = 0.999
    config.optimizer.eps = 1e-8
    config.optimizer.clip_norm = 0.0  # global gradient norm to clip at; 0: never
    config.ema_decay = 0.0  # of an average of the weights that is validated and exported; 0: none

    config.spmd = "shard_map"  # or "pmap"
    config.accumulate = 1  # parts in which each device works on its share of a batch, to save memory
    config.steps_per_dispatch = 1  # updates that the devices do without asking the host
    config.checks = False  # stop at the origin of a NaN inside a step and at unintended transfers; slow, for debugging

    config.log_every = 100  # steps
    config.checkpoint_every = 5_000
    config.validate_every = 5_000
    config.validation_images = 10
    config.keep_checkpoints = 3  # the last ones; the best by validation PSNR is kept besides

    if recipe == "long":
        config.optimizer.schedule = "cosine"
        config.optimizer.learning_rate = 5e-3
        config.optimizer.warmup = 200
        config.ema_decay = 0.999
    return config
