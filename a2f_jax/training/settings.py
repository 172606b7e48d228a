"""The settings of a training run: which values are valid, and which may change when the run resumes.

Every setting has one row in `_SETTINGS`. A config may have further entries of its own, which are ignored.
"""

import contextlib
import difflib
import enum
import operator
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import flax.traverse_util
import numpy as np
from ml_collections import ConfigDict

from a2f_jax.catalog import SCALES
from a2f_jax.data.degradations import RESIZE_KERNELS, Degradation
from a2f_jax.errors import UserError, count_of
from a2f_jax.models.a2f import A2F, VARIANTS
from a2f_jax.models.convolution import prefers_winograd
from a2f_jax.models.packed import pixels_per_pack
from a2f_jax.models.registry import PEERS
from a2f_jax.training.losses import LOSSES


class _Change(enum.Enum):
    """What a change of a setting means for a run that resumes."""

    FREE = enum.auto()  # does not affect the result
    ACCEPTED = enum.auto()  # affects the result: the user has to accept it
    IMPOSSIBLE = enum.auto()  # makes it another run


class _Setting(NamedTuple):
    valid: Callable[[Any], bool]
    rule: str  # what `valid` checks, as in "must be ..."
    change: _Change
    used: Callable[[Mapping[str, Any]], bool] = lambda _: True  # whether it has an effect, given the other settings
    default: Any = None  # of a setting that a config may leave out or unset (None); all others are required
    formerly: Any = None  # the value of runs from before the setting existed, if a change from it matters
    same: Callable[[Any, Any], bool] = operator.eq  # whether two values are not a change


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    number = _is_integer(value) or isinstance(value, float | np.floating)
    return number and bool(abs(value) <= float(np.finfo(np.float32).max))  # which a NaN is not


def _is_range(value: Any, valid: Callable[[Any], bool]) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(valid, value)) and value[0] <= value[1]


_AT_LEAST_1 = (lambda value: _is_integer(value) and value >= 1, "a positive integer")
_NOT_NEGATIVE = (lambda value: _is_number(value) and value >= 0, "a finite number ≥ 0")
_PROBABILITY = (lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1")
_BELOW_1 = (lambda value: _is_number(value) and 0 <= value < 1, "a number ≥ 0 and < 1")
_BOOLEAN = (lambda value: isinstance(value, bool), "True or False")
_TEXT = (lambda value: isinstance(value, str), "a string")


def _is_regular_expression(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(re.compile(value))
    except re.error:
        return False


def _choice(*names: Any) -> tuple[Callable[[Any], bool], str]:
    kinds = (int, np.integer) if isinstance(names[0], int) else str
    return lambda value: isinstance(value, kinds) and value in names, f"one of {', '.join(map(str, names))}"


def _with(name: str, value: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda settings: settings[name] == value


_FREE, _ACCEPTED, _IMPOSSIBLE = _Change
_PHOTO = _with("data.degradation", "photo")
_COSINE, _HALVING = (_with("optimizer.schedule", name) for name in ("cosine", "halving"))

_SETTINGS = {
    "seed": _Setting(lambda x: _is_integer(x) and 0 <= x < 2**32, "an integer from 0 to 2³² − 1", _ACCEPTED),
    # The cosine schedule depends on the length of the run. Steps are counted in int32.
    "steps": _Setting(
        lambda x: _is_integer(x) and 1 <= x < 2**31, "a positive integer, at most 2³¹ − 1", _ACCEPTED, _COSINE
    ),
    "batch_size": _Setting(
        lambda x: _is_integer(x) and 1 <= x < 2**31, "a positive integer, at most 2³¹ − 1", _ACCEPTED
    ),
    "loss": _Setting(*_choice(*LOSSES), _ACCEPTED, formerly="l1"),
    # The same weights may be named in several ways, such as from another folder.
    "init": _Setting(
        *_TEXT, _IMPOSSIBLE, same=lambda old, new: pathlib.PurePath(old).name == pathlib.PurePath(new).name
    ),
    "model.name": _Setting(
        lambda x: isinstance(x, str) and (x == "a2f" or x in PEERS),
        "a2f or a network that `a2f models` lists",
        _IMPOSSIBLE,
        default=lambda _: "a2f",
    ),
    "model.variant": _Setting(*_choice(*VARIANTS), _FREE),  # stands for `features` and `blocks`
    "model.scale": _Setting(*_choice(*SCALES), _IMPOSSIBLE),
    "model.features": _Setting(*_AT_LEAST_1, _IMPOSSIBLE, default=lambda variant: variant.features),
    "model.blocks": _Setting(*_AT_LEAST_1, _IMPOSSIBLE, default=lambda variant: variant.blocks),
    "model.head_kernel": _Setting(
        lambda x: _is_integer(x) and x >= 1 and x % 2 == 1, "a positive odd integer", _IMPOSSIBLE
    ),
    "model.attention": _Setting(*_BOOLEAN, _IMPOSSIBLE),
    "model.auxiliary": _Setting(*_BOOLEAN, _IMPOSSIBLE),
    "model.depthwise": _Setting(*_BOOLEAN, _IMPOSSIBLE, default=lambda _: False),
    "model.dtype": _Setting(*_choice("float32", "bfloat16"), _ACCEPTED),
    "model.remat": _Setting(*_BOOLEAN, _FREE),
    "data.name": _Setting(*_TEXT, _ACCEPTED),
    "data.dir": _Setting(*_TEXT, _FREE),
    "data.patch_size": _Setting(*_AT_LEAST_1, _ACCEPTED),
    "data.placement": _Setting(*_choice("host", "device"), _FREE),
    "data.sampling": _Setting(*_choice("image", "area"), _ACCEPTED, default=lambda _: "image"),
    "data.permute_channels": _Setting(*_BOOLEAN, _ACCEPTED, default=lambda _: False),
    "data.degradation": _Setting(*_choice("bicubic", "photo"), _ACCEPTED, default=lambda _: "bicubic"),
    "degradation.blur_probability": _Setting(*_PROBABILITY, _ACCEPTED, _PHOTO),
    "degradation.blur_sigma": _Setting(
        lambda x: _is_range(x, lambda end: _is_number(end) and 0 <= end <= 4),
        "two numbers from 0 to 4, in ascending order",
        _ACCEPTED,
        _PHOTO,
    ),
    "degradation.blur_ratio": _Setting(lambda x: _is_number(x) and x >= 1, "a finite number ≥ 1", _ACCEPTED, _PHOTO),
    "degradation.resize_kernels": _Setting(
        lambda x: isinstance(x, tuple) and len(x) > 0 and all(name in RESIZE_KERNELS for name in x),
        f"one or more of {', '.join(RESIZE_KERNELS)}, as a tuple",
        _ACCEPTED,
        _PHOTO,
    ),
    "degradation.noise_probability": _Setting(*_PROBABILITY, _ACCEPTED, _PHOTO),
    "degradation.noise_sigma": _Setting(
        lambda x: _is_range(x, lambda end: _is_number(end) and 0 <= end <= 255),
        "two numbers from 0 to 255, in ascending order",
        _ACCEPTED,
        _PHOTO,
    ),
    "degradation.poisson_probability": _Setting(*_PROBABILITY, _ACCEPTED, _PHOTO),
    "degradation.gray_probability": _Setting(*_PROBABILITY, _ACCEPTED, _PHOTO),
    "degradation.jpeg_probability": _Setting(*_PROBABILITY, _ACCEPTED, _PHOTO),
    "degradation.jpeg_quality": _Setting(
        lambda x: _is_range(x, lambda end: _is_integer(end) and 1 <= end <= 100),
        "two integers from 1 to 100, in ascending order",
        _ACCEPTED,
        _PHOTO,
    ),
    "degradation.subsampling_probability": _Setting(*_PROBABILITY, _ACCEPTED, _PHOTO),
    "optimizer.name": _Setting(*_choice("adam", "muon"), _IMPOSSIBLE),  # their states differ
    "optimizer.schedule": _Setting(*_choice("halving", "cosine"), _ACCEPTED),
    "optimizer.learning_rate": _Setting(*_NOT_NEGATIVE, _ACCEPTED),
    "optimizer.halve_every": _Setting(*_AT_LEAST_1, _ACCEPTED, _HALVING),
    "optimizer.warmup": _Setting(lambda x: _is_integer(x) and x >= 0, "an integer ≥ 0", _ACCEPTED),
    "optimizer.momentum": _Setting(*_BELOW_1, _ACCEPTED, _with("optimizer.name", "muon")),
    "optimizer.adam_factor": _Setting(
        *_NOT_NEGATIVE, _ACCEPTED, _with("optimizer.name", "muon"), default=lambda _: 1.0
    ),
    "optimizer.b1": _Setting(*_BELOW_1, _ACCEPTED),
    "optimizer.b2": _Setting(*_BELOW_1, _ACCEPTED),
    "optimizer.eps": _Setting(lambda x: _is_number(x) and x > 0, "a finite number > 0", _ACCEPTED),
    "optimizer.clip_norm": _Setting(*_NOT_NEGATIVE, _ACCEPTED),
    # Frozen parameters have no optimizer state.
    "optimizer.freeze": _Setting(_is_regular_expression, "a regular expression", _IMPOSSIBLE, formerly=""),
    "ema_decay": _Setting(*_BELOW_1, _ACCEPTED),
    "spmd": _Setting(*_choice("shard_map", "pmap"), _FREE),
    "accumulate": _Setting(*_AT_LEAST_1, _ACCEPTED),
    "steps_per_dispatch": _Setting(*_AT_LEAST_1, _FREE),
    "checks": _Setting(*_BOOLEAN, _FREE),
    "log_every": _Setting(*_AT_LEAST_1, _FREE),
    "checkpoint_every": _Setting(*_AT_LEAST_1, _FREE),
    "validate_every": _Setting(*_AT_LEAST_1, _FREE),
    "validation_images": _Setting(*_AT_LEAST_1, _FREE),
    "validation.sets": _Setting(
        lambda x: isinstance(x, tuple | list) and all(isinstance(name, str) and name and "," not in name for name in x),
        "a tuple of names of datasets, such as ('set5', 'set14'), or on the command line set5,set14",
        _FREE,
    ),
    "validation.dir": _Setting(*_TEXT, _FREE),
    "keep_checkpoints": _Setting(*_AT_LEAST_1, _FREE),
}

FOLDERS_OF_DATA = ("data.dir", "validation.dir")
"""The settings that may differ between the machines of a run, which have copies of the data."""

_ONLY_A2F = {name for name in _SETTINGS if name.startswith("model.")} - {"model.name", "model.scale", "model.dtype"}
"""The settings that describe an A2F, and that the other networks do not have."""


def _is_a2f(settings: Mapping[str, Any]) -> bool:
    return settings.get("model.name", "a2f") not in PEERS


def flat(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a config by dotted name, such as `"optimizer.learning_rate"`.

    Lists, which JSON has instead of tuples, become tuples.
    """
    nested = config.to_dict() if isinstance(config, ConfigDict) else config
    settings = flax.traverse_util.flatten_dict(nested)
    # The keys of entries that are not settings need not be strings.
    return {
        ".".join(map(str, path)): tuple(value) if isinstance(value, list) else value for path, value in settings.items()
    }


def _plain(value: Any) -> Any:
    if type(value) in (tuple, list):
        return type(value)(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def _as_lists(value: Any) -> Any:
    return [_as_lists(part) for part in value] if isinstance(value, tuple) else value


def settings_of(config: ConfigDict, **changes: Any) -> ConfigDict:
    """Returns a config of the settings alone, without entries that are none, and without NumPy scalars.

    Args:
      config: the settings of a run, which may be frozen, and have any entries of its own.
      **changes: settings that get another value in the copy.
    """
    plain = {name: _plain(value) for name, value in flat(config).items() if name in _SETTINGS}
    return ConfigDict(flax.traverse_util.unflatten_dict({**plain, **changes}, sep="."))


def stored(config: ConfigDict) -> dict[str, Any]:
    """Returns the settings of a config as nested dictionaries that JSON can hold.

    NumPy scalars become Python numbers, and tuples lists. Settings that are unset (None) are left out, and so are
    entries that are not settings: they can be any object.
    """
    settings = {name: value for name, value in flat(config).items() if name in _SETTINGS and value is not None}
    lists = {name: _as_lists(_plain(value)) for name, value in settings.items()}
    return flax.traverse_util.unflatten_dict(lists, sep=".")


def check_complete(config: ConfigDict, name: str) -> None:
    """Checks that a config has all required settings.

    Args:
      config: the settings of a run.
      name: what to call the config in the message, such as the name of its file.

    Raises:
      UserError: a required setting is missing.
    """
    existing = flat(config)
    required = {key for key, setting in _SETTINGS.items() if setting.default is None}
    if not _is_a2f(existing):
        required -= _ONLY_A2F
    if existing.get("data.degradation") != "photo":
        required -= {name for name in _SETTINGS if name.startswith("degradation.")}
    missing = [key for key in _SETTINGS if key in required and key not in existing]
    if missing:
        raise UserError(f"{name} lacks {', '.join(missing)}: start from a2f_jax.configs.a2f.get_config()")


def rule_of(name: str) -> str | None:
    """Returns which values of a setting are valid, such as `"a positive integer"`, or None if it is not a setting."""
    return _SETTINGS[name].rule if name in _SETTINGS else None


@contextlib.contextmanager
def naming_setting(name: str) -> Iterator[None]:
    """Lets errors that the block raises name a setting where they concern the parameter `data_dir`.

    Args:
      name: the setting whose value the block passes as `data_dir`, such as `"data.dir"`.
    """
    try:
        yield
    except UserError as error:
        if error.parameter != "data_dir":
            raise
        raise type(error)(f"{error} (config.{name})") from error


def unknown_entries(config: ConfigDict) -> list[str]:
    """Returns the dotted names of the entries of a config that are not settings."""
    return [name for name in flat(config) if name not in _SETTINGS]


def closest_settings(name: str, names: Iterable[str]) -> list[str]:
    """Returns the settings that a misspelled or abbreviated name may stand for, the likeliest first.

    Args:
      name: the name that does not exist, such as `"lr"` or `"optimiser.learning_rate"`.
      names: the dotted names of all settings.
    """
    last = {known: known.rpartition(".")[2] for known in names}
    wanted = name.rpartition(".")[2]
    initials = [known for known, leaf in last.items() if "".join(word[0] for word in leaf.split("_") if word) == wanted]
    leaves = difflib.get_close_matches(wanted, {*last.values()}, n=3, cutoff=0.7)
    similar = [known for leaf in leaves for known in last if last[known] == leaf]
    return list(dict.fromkeys([*initials, *similar]))[:3]


def check(config: ConfigDict, device_count: int) -> None:
    """Checks all settings of a run, alone and together.

    Args:
      config: the settings of the run.
      device_count: the number of devices of all processes.

    Raises:
      UserError: a setting is missing or invalid.
    """
    check_complete(config, "the config")
    settings = flat(config)
    for name, setting in _SETTINGS.items():
        unset = setting.default is not None and settings.get(name) is None
        if name in settings and not unset and not setting.valid(settings[name]):
            raise UserError(f"config.{name}={settings[name]} is invalid: it must be {setting.rule}")
    if not _is_a2f(settings):
        _check_peer(settings)
    batch, parts = config.batch_size, device_count * config.accumulate
    if batch % parts:
        raise UserError(
            f"config.batch_size={batch} cannot be split evenly among {count_of(device_count, 'device')} with "
            f"config.accumulate={config.accumulate}: use a multiple of {parts}"
        )
    if config.optimizer.warmup > config.steps:
        raise UserError(
            f"config.optimizer.warmup={config.optimizer.warmup} is longer than the run: use at most "
            f"config.steps={config.steps}"
        )


def _check_peer(settings: Mapping[str, Any]) -> None:
    name = settings["model.name"]
    peer, scale, patch = PEERS[name], settings["model.scale"], settings["data.patch_size"]
    if wrong := sorted(_ONLY_A2F & settings.keys()):
        raise UserError(f"config.{wrong[0]} does not apply to {peer.title}: remove it, as in configs/peers.py")
    if scale not in peer.scales:
        raise UserError(
            f"config.model.scale={scale} is invalid: {peer.title} upscales by {' or '.join(map(str, peer.scales))}"
        )
    smallest = getattr(peer.make(scale), "smallest", 1)
    if patch < smallest:
        raise UserError(f"config.data.patch_size={patch} is too small for {peer.title}: use at least {smallest}")


def make_network(config: ConfigDict | Mapping[str, Any], platform: str, device_count: int = 1) -> nn.Module:
    """Returns the network that the settings `model.*` describe, computed in the form that is fastest for the run.

    Args:
      config: the settings of the run, which `check` accepts.
      platform: the platform it will run on, such as `"cpu"`.
      device_count: the number of devices that share a batch.
    """
    settings = _with_defaults(flat(config))
    if not _is_a2f(settings):
        peer = PEERS[settings["model.name"]]
        return peer.make(settings["model.scale"]).clone(dtype=settings["model.dtype"])
    attributes = {
        name.removeprefix("model."): settings[name]
        for name in _SETTINGS
        if name.startswith("model.") and name not in ("model.name", "model.variant")
    }
    network = A2F(**attributes)
    images = settings["batch_size"] // device_count // settings["accumulate"]
    return network.clone(
        winograd=prefers_winograd(platform, network.dtype),
        pack=pixels_per_pack(platform, network.features, images),
    )


def _with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    variant = VARIANTS[settings["model.variant"]] if _is_a2f(settings) else None
    defaults = {
        name: setting.default(variant)
        for name, setting in _SETTINGS.items()
        if setting.default and (variant or not name.startswith("model."))
    }
    return {**defaults, **{name: value for name, value in settings.items() if value is not None}}


def degradation_of(config: ConfigDict) -> Degradation | None:
    """Returns how a run makes LR images of HR images, or None if it takes those of the dataset.

    Args:
      config: the settings of the run, which `check` accepts.
    """
    if config.data.get("degradation", "bicubic") == "bicubic":
        return None
    prefix = "degradation."
    values = {k.removeprefix(prefix): v for k, v in flat(config).items() if k.startswith(prefix) and k in _SETTINGS}
    return Degradation(**values)


def check_resume(before: Mapping[str, Any], config: ConfigDict, folder: object, accept_changes: bool) -> None:
    """Checks that a run may resume with the given settings.

    Args:
      before: the settings that the run was started with, as nested dictionaries.
      config: the settings to resume it with.
      folder: the work folder, for messages.
      accept_changes: whether the user accepts changes that affect the result.

    Raises:
      UserError: settings that must not change have changed, or others that affect the result and are not accepted, or
        `before` is damaged.
    """
    try:
        formerly = {name: setting.formerly for name, setting in _SETTINGS.items() if setting.formerly is not None}
        old = _with_defaults({**formerly, **flat(before)})
    except KeyError as error:
        raise UserError(f"the settings stored in {folder} are damaged ({error}): use another work folder") from error
    new = _with_defaults(flat(config))
    changes: dict[_Change, list[str]] = {change: [] for change in _Change}
    for name, setting in _SETTINGS.items():
        # A checkpoint may lack the settings that were introduced after it was written.
        if name in old and name in new and setting.used(new) and not setting.same(old[name], new[name]):
            changes[setting.change].append(f"{name}: {old[name]!r} → {new[name]!r}")
    if impossible := changes[_IMPOSSIBLE]:
        remedy = "use another work folder"
        if any(change.startswith("model.") for change in impossible):
            remedy += f"; with config.init={folder}, a new run starts from the weights that match"
        raise UserError(
            f"{folder} contains a run with settings that cannot change when it resumes ({'; '.join(impossible)}): "
            f"{remedy}"
        )
    if changes[_ACCEPTED] and not accept_changes:
        raise UserError(
            f"{folder} contains a run with other settings ({'; '.join(changes[_ACCEPTED])}): use another work folder, "
            "or accept the changes",
            parameter="accept_changes",
        )
