"""The settings of a training run: all checks of a config, and which settings may change when a run resumes."""

from collections.abc import Iterator
from typing import Any

import flax.traverse_util
from ml_collections import ConfigDict

from a2f_jax.errors import UserError
from a2f_jax.models.a2f import A2F, VARIANTS
from a2f_jax.models.convolution import prefers_winograd

# Settings that do not affect the result, and so may change when a run resumes.
FREE = {
    "steps",
    "spmd",
    "steps_per_dispatch",
    "checks",
    "log_every",
    "checkpoint_every",
    "validate_every",
    "validation_images",
    "keep_checkpoints",
    "data.dir",
    "data.placement",
    "model.remat",
    "init",
}


def make_network(config: ConfigDict, platform: str) -> A2F:
    """Returns the network that `config.model` describes.

    Args:
      config: the settings of the run.
      platform: the platform it will run on, such as `"cpu"`, which decides how convolutions are computed.

    Raises:
      UserError: the variant does not exist, or a setting is not an attribute of the network.
    """
    settings = config.model.to_dict()
    try:
        size = VARIANTS[settings.pop("variant")]
        # The ablations of the paper (configs/ablation.py) override the number of blocks.
        network = A2F(**{"features": size.features, "blocks": size.blocks, **settings})
    except KeyError as error:
        raise UserError(f"config.model.variant={error} is unknown: choose one of {', '.join(VARIANTS)}") from None
    except TypeError as error:
        raise UserError(f"config.model: {error}") from None
    return network.clone(winograd=prefers_winograd(platform, network.dtype))


def check(config: ConfigDict, device_count: int) -> None:
    """Checks the settings of a run.

    Args:
      config: the settings of the run.
      device_count: the number of devices of all processes.

    Raises:
      UserError: a setting is invalid.
    """
    counts = {
        **{name: config[name] for name in ("steps", "steps_per_dispatch", "log_every", "checkpoint_every")},
        **{name: config[name] for name in ("validate_every", "validation_images", "keep_checkpoints", "accumulate")},
        "data.patch_size": config.data.patch_size,
    }
    for name, value in counts.items():
        if value < 1:
            raise UserError(f"config.{name}={value} must be at least 1")
    if config.optimizer.clip_norm < 0:
        raise UserError(
            f"config.optimizer.clip_norm={config.optimizer.clip_norm} must not be negative: use 0 to disable clipping"
        )
    if not 0 <= config.ema_decay < 1:
        raise UserError(
            f"config.ema_decay={config.ema_decay} must be at least 0 and below 1: use 0 to disable averaging"
        )
    devices, batch = device_count, config.batch_size
    if batch < 1 or batch % (devices * config.accumulate):
        raise UserError(
            f"config.batch_size={batch} cannot be split evenly among {devices} devices with "
            f"config.accumulate={config.accumulate}: choose a multiple of {devices * config.accumulate}"
        )
    if config.data.placement not in ("host", "device"):
        raise UserError(f"config.data.placement={config.data.placement!r} is unknown: choose 'host' or 'device'")
    if config.model.dtype not in ("float32", "bfloat16"):
        raise UserError(f"config.model.dtype={config.model.dtype!r} is unknown: choose 'float32' or 'bfloat16'")


def changed_settings(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Yields the settings that affect the result and differ, as `key: before → now`."""
    old, new = (flax.traverse_util.flatten_dict(tree, sep=".") for tree in (before, now))
    # The cosine schedule depends on the total number of steps.
    free = FREE - {"steps"} if new["optimizer.schedule"] == "cosine" else FREE
    for key in sorted({*old, *new} - free):
        if old.get(key) != new.get(key):
            yield f"{key}: {old.get(key)} → {new.get(key)}"
