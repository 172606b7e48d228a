"""The training runs of the paper, `a2f.py:{s,sd,m,l}_x{2,3,4}`, and our own recipe, `a2f.py:sd_x4,recipe=long`.

The paper trains on DIV2K with HR patches of 48 · scale pixels, batches of 16, the L1 loss, Adam, and a learning rate of
1e-3 that is halved every 200,000 steps. Any setting can be overridden:

a2f train --config configs/a2f.py:sd_x4 --config.data.name=my_photos
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from a2f_jax.models.a2f import VARIANTS


def get_config(run: str = "sd_x4") -> ConfigDict:
    """Returns the settings of a run.

    Args:
      run: variant and scale, such as `"sd_x4"`, optionally with our recipe, `"sd_x4,recipe=long"`.

    Raises:
      ValueError: the run does not exist.
    """
    name, _, recipe = run.partition(",recipe=")
    size, _, scale = name.partition("_x")
    sizes = ",".join(variant.removeprefix("a2f-") for variant in VARIANTS)
    if f"a2f-{size}" not in VARIANTS or scale not in ("2", "3", "4") or recipe not in ("", "long"):
        raise ValueError(
            f"run {run!r} does not exist: use {{{sizes}}}_x{{2,3,4}}, for example sd_x4 or sd_x4,recipe=long"
        )

    config = ConfigDict()
    config.seed = 0  # of the initial values, the patches, and their degradation
    config.steps = 1_000_000  # updates
    config.batch_size = 16  # global: shared by all devices of all processes
    config.loss = "l1"  # or "l2", "charbonnier", "fft"
    config.init = ""  # weights to start from, where names and shapes match; empty: random initialization

    config.model = ConfigDict()
    config.model.variant = f"a2f-{size}"
    config.model.scale = int(scale)
    config.model.features = placeholder(int)  # channels; unset: as many as the variant has
    config.model.blocks = placeholder(int)  # unset: as many as the variant has
    config.model.head_kernel = 3  # side of the first convolution's kernel
    config.model.attention = True  # channel attention in every block
    config.model.auxiliary = True  # features of earlier blocks, projected, in every block
    config.model.dtype = (
        "float32"  # of the computation; parameters are always float32; "bfloat16" is faster on accelerators
    )
    config.model.remat = False  # recompute blocks in the backward pass, which saves memory

    config.data = ConfigDict()
    config.data.name = "div2k"
    config.data.dir = ""  # folder with the prepared datasets; empty: the default of `a2f data prepare`
    config.data.patch_size = 48  # side in LR pixels
    config.data.placement = "host"  # or "device": keeps the decoded images in device memory and crops them there
    config.data.sampling = "image"  # every image is equally likely; or "area": every patch, so large images more often
    config.data.permute_channels = False  # permute the color channels at random, in addition to flips and rotations
    config.data.degradation = "bicubic"  # or "photo": makes LR of HR in the training step, see below

    config.degradation = ConfigDict()  # only for "photo"; what lies in a range is equally likely
    config.degradation.blur_probability = 0.5
    config.degradation.blur_sigma = (0.1, 0.5)  # standard deviation along the wider axis, in LR pixels
    config.degradation.blur_ratio = 2.0  # at most, of the wider to the narrower axis; 1: isotropic
    config.degradation.resize_kernels = ("bicubic", "bilinear", "area")  # equally likely
    config.degradation.noise_probability = 0.5
    config.degradation.noise_sigma = (0.5, 4.0)  # standard deviation at medium brightness, on 0..255
    config.degradation.poisson_probability = 0.5  # of noise; the rest is Gaussian
    config.degradation.gray_probability = 0.4  # of noise that is the same in R, G and B
    config.degradation.jpeg_probability = 0.85
    config.degradation.jpeg_quality = (40, 95)
    config.degradation.subsampling_probability = 0.75  # of JPEG with 4:2:0; the rest is 4:4:4

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"  # or "muon", which needs a higher learning rate
    config.optimizer.schedule = "halving"  # or "cosine"
    config.optimizer.learning_rate = 1e-3  # the highest one of the schedule
    config.optimizer.halve_every = 200_000  # steps; only for "halving"
    config.optimizer.warmup = 0  # steps of linear increase from 0 to learning_rate
    config.optimizer.momentum = 0.95  # only for "muon"
    config.optimizer.adam_factor = 1.0  # only for "muon": multiplies the learning rate of what it leaves to Adam
    config.optimizer.b1 = 0.9  # b1, b2 and eps: of "adam", and of the parameters that "muon" leaves to Adam
    config.optimizer.b2 = 0.999
    config.optimizer.eps = 1e-8
    config.optimizer.clip_norm = 0.0  # maximum global norm of the gradient; 0: no clipping
    config.optimizer.freeze = ""  # a regular expression: parameters with a match in their names are not trained
    config.ema_decay = 0.0  # per step, of the average of the weights that is validated and exported; 0: no average

    config.spmd = "shard_map"  # or "pmap"
    config.accumulate = 1  # parts into which each device splits its share of a batch, which saves memory
    config.steps_per_dispatch = 1  # updates per call from the host
    config.checks = False  # debugging: name the operation that made a NaN, disallow implicit transfers; slow

    config.log_every = 100  # steps
    config.checkpoint_every = 5_000  # a checkpoint is also saved at each validation
    config.validate_every = 5_000
    config.validation_images = 10  # held-out images that are measured, by which the best checkpoint is chosen
    config.validation = ConfigDict()
    config.validation.sets = ()  # measured as well, on whole images, such as ("set5",); also folders such as "photos/"
    config.validation.dir = ""  # folder with these sets, as --data of `a2f evaluate`; empty: that of prepared datasets
    config.keep_checkpoints = 3  # the most recent ones; the one with the best validation PSNR is kept in addition

    if recipe == "long":
        config.loss = "fft"
        config.optimizer.name = "muon"
        config.optimizer.schedule = "cosine"
        config.optimizer.learning_rate = 2e-2
        config.optimizer.adam_factor = 0.1
        config.optimizer.warmup = 200
        config.ema_decay = 0.998
    return config
