"""Which settings are valid, and which may change when a run resumes."""

import json
import pathlib

import numpy as np
import pytest
from ml_collections import ConfigDict

from a2f_jax.configs import a2f, peers, photo
from a2f_jax.errors import UserError
from a2f_jax.models.registry import PEERS
from a2f_jax.training import settings
from a2f_jax.training.settings import (
    check,
    check_resume,
    closest_settings,
    degradation_of,
    flat,
    make_network,
    stored,
)

OPTIONAL = {"model.name", "model.depthwise"}


@pytest.fixture
def paper():
    return a2f.get_config("sd_x4")


def changed(config, **values):
    """Returns a copy of a config with some settings replaced; `optimizer__b1` stands for `optimizer.b1`."""
    copy = config.copy_and_resolve_references()
    for name, value in values.items():
        *sections, key = name.split("__")
        section = copy
        for part in sections:
            section = section[part]
        with section.unlocked(), section.ignore_type():
            section[key] = value
    return copy


def test_every_setting_of_the_configs_has_a_rule_and_every_rule_a_setting(paper):
    assert settings._SETTINGS.keys() - OPTIONAL == flat(paper).keys()


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("seed", -1, "an integer from 0"),
        ("seed", 2**32, "an integer from 0"),
        ("seed", 0.5, "an integer from 0"),
        ("steps", 0, "a positive integer"),
        ("steps", 2**31, "at most 2³¹ − 1"),
        ("steps", 1e6, "a positive integer"),
        ("steps", True, "a positive integer"),
        ("batch_size", 0, "a positive integer"),
        ("loss", "l3", "one of l1, l2, charbonnier, fft"),
        ("model__scale", 2.0, "one of 2, 3, 4"),
        ("model__dtype", np.dtype("float32"), "one of float32, bfloat16"),
        ("model__variant", np.array(["a2f-s"]), "one of a2f-s"),
        ("model__name", ["a2f"], "a2f or a network"),
        ("init", None, "a string"),
        ("model__variant", "a2f-xl", "one of a2f-s, a2f-sd"),
        ("model__scale", 5, "one of 2, 3, 4"),
        ("model__features", 0, "a positive integer"),
        ("model__blocks", 0, "a positive integer"),
        ("model__head_kernel", 4, "a positive odd integer"),
        ("model__head_kernel", 0, "a positive odd integer"),
        ("model__head_kernel", -1, "a positive odd integer"),
        ("model__attention", "yes", "True or False"),
        ("model__dtype", "float16", "one of float32, bfloat16"),
        ("model__remat", 1, "True or False"),
        ("data__patch_size", 0, "a positive integer"),
        ("data__placement", "disk", "one of host, device"),
        ("optimizer__name", "sgd", "one of adam, muon"),
        ("optimizer__schedule", "linear", "one of halving, cosine"),
        ("optimizer__learning_rate", -1e-3, "a finite number ≥ 0"),
        ("optimizer__learning_rate", float("inf"), "a finite number"),
        ("optimizer__learning_rate", float("nan"), "a finite number"),
        ("optimizer__learning_rate", 1e39, "a finite number"),  # infinite in float32
        ("optimizer__halve_every", 0, "a positive integer"),
        ("optimizer__warmup", -1, "an integer ≥ 0"),
        ("optimizer__momentum", 1.0, "a number ≥ 0 and < 1"),
        ("optimizer__b1", 1.0, "a number ≥ 0 and < 1"),
        ("optimizer__b2", -0.1, "a number ≥ 0 and < 1"),
        ("optimizer__eps", 0.0, "a finite number > 0"),
        ("optimizer__clip_norm", -1.0, "a finite number ≥ 0"),
        ("optimizer__freeze", "block_(", "a regular expression"),
        ("optimizer__freeze", 3, "a regular expression"),
        ("ema_decay", 1.0, "a number ≥ 0 and < 1"),
        ("spmd", "dmap", "one of shard_map, pmap"),
        ("accumulate", 0, "a positive integer"),
        ("steps_per_dispatch", 0, "a positive integer"),
        ("checks", "no", "True or False"),
        ("log_every", 0, "a positive integer"),
        ("validation_images", 0, "a positive integer"),
        ("keep_checkpoints", 0, "a positive integer"),
        ("validation__sets", "set5", "a tuple of names of datasets"),
        ("validation__sets", (5,), "a tuple of names of datasets"),
        ("validation__dir", None, "a string"),
        ("data__degradation", "jpeg", "one of bicubic, photo"),
        ("degradation__blur_probability", 1.1, "a number from 0 to 1"),
        ("degradation__blur_sigma", (0.5, 0.1), "two numbers from 0 to 4, in ascending order"),
        ("degradation__blur_ratio", 0.5, "a finite number ≥ 1"),
        ("degradation__resize_kernels", (), "one or more of bicubic, bilinear, area"),
        ("degradation__resize_kernels", ("lanczos",), "one or more of bicubic, bilinear, area"),
        ("degradation__noise_sigma", (1.0, 2.0, 3.0), "two numbers from 0 to 255"),
        ("degradation__jpeg_quality", (0, 95), "two integers from 1 to 100"),
        ("degradation__jpeg_quality", 60, "two integers from 1 to 100"),
        ("degradation__subsampling_probability", -0.1, "a number from 0 to 1"),
    ],
)
def test_an_invalid_value_is_refused_with_its_rule(paper, name, value, rule):
    with pytest.raises(UserError, match=f"config.{name.replace('__', '.')}=.* is invalid: it must be .*{rule}"):
        check(changed(paper, **{name: value}), device_count=1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 12}, "batch_size=12 cannot be split evenly among 8 devices with config.accumulate=1.*of 8$"),
        ({"accumulate": 3}, "use a multiple of 24"),
        ({"optimizer__warmup": 11, "steps": 10}, "warmup=11 is longer than the run: use at most config.steps=10"),
    ],
)
def test_values_that_do_not_fit_together_are_refused_with_a_remedy(paper, values, message):
    with pytest.raises(UserError, match=message):
        check(changed(paper, **values), device_count=8)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"optimizer__learning_rate": 0, "optimizer__warmup": 1_000_000, "seed": 2**32 - 1},
        {"optimizer__name": "muon", "optimizer__schedule": "cosine", "spmd": "pmap", "model__dtype": "bfloat16"},
        {"model__features": None, "model__blocks": 8},
        {"model__features": 1, "model__blocks": 1, "model__depthwise": True, "model__head_kernel": 1},
        {"my_own_setting": "anything"},
    ],
)
def test_valid_values_are_accepted(paper, values):
    check(changed(paper, **values), device_count=8)


def test_a_config_without_a_setting_is_refused_by_name(paper):
    del paper.optimizer.b1
    with pytest.raises(UserError, match=r"lacks optimizer\.b1"):
        check(paper, device_count=1)


def resume(before, now, accept_changes=False):
    check_resume(before.to_dict(), now, "runs/x", accept_changes)


@pytest.mark.parametrize(
    "values",
    [
        {"steps": 7},
        {"log_every": 1, "keep_checkpoints": 9, "validate_every": 3, "checkpoint_every": 2, "validation_images": 1},
        {"spmd": "pmap", "steps_per_dispatch": 5, "checks": True, "data__placement": "device", "model__remat": True},
        {"data__dir": "/elsewhere"},
        {"validation__sets": ("set5", "photos/"), "validation__dir": "benchmark"},
        {"optimizer__momentum": 0.5},  # adam does not use it
        {"degradation__jpeg_quality": (1, 2)},  # neither does "bicubic"
        {"model__features": 16, "model__blocks": 8, "model__depthwise": False},  # as in A2F-SD
        {"my_own_setting": "anything"},
    ],
)
def test_settings_that_do_not_affect_the_result_may_change(paper, values):
    resume(paper, changed(paper, **values))
    resume(changed(paper, **values), paper)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer__learning_rate": 5e-4}, "optimizer.learning_rate: 0.001 → 0.0005"),
        ({"optimizer__halve_every": 7}, "optimizer.halve_every: 200000 → 7"),
        ({"loss": "fft"}, "loss: 'l1' → 'fft'"),
        ({"model__dtype": "bfloat16"}, "model.dtype: 'float32' → 'bfloat16'"),
        ({"seed": 1, "data__name": "mine"}, "seed: 0 → 1; data.name: 'div2k' → 'mine'"),
    ],
)
def test_settings_that_affect_the_result_may_change_only_if_accepted(paper, values, message):
    now = changed(paper, **values)
    with pytest.raises(UserError, match=message) as refused:
        resume(paper, now)
    assert refused.value.parameter == "accept_changes"
    resume(paper, now, accept_changes=True)


def test_a_degradation_is_known_again_after_it_was_stored_and_may_change_if_accepted(paper):
    now = changed(paper, data__degradation="photo")
    before = json.loads(json.dumps(stored(now)))
    check_resume(before, now, "runs/x", accept_changes=False)
    with pytest.raises(UserError, match=r"\(degradation.jpeg_quality: \(40, 95\) → \(1, 2\)\)"):
        check_resume(before, changed(now, degradation__jpeg_quality=(1, 2)), "runs/x", accept_changes=False)
    for config in (paper, peers.get_config("carn_m_x4")):
        before = config.to_dict()
        del before["data"]["degradation"]  # of a run that is older than the setting
        with pytest.raises(UserError, match=r"data.degradation: 'bicubic' → 'photo'"):
            check_resume(before, changed(config, data__degradation="photo"), "runs/x", accept_changes=False)


def test_a_config_of_ones_own_may_leave_out_the_degradation_unless_it_uses_one(paper):
    del paper.degradation
    check(paper, device_count=1)
    paper.data.degradation = "photo"
    with pytest.raises(UserError, match=r"lacks degradation.blur_probability, .*: start from a2f_jax.configs.a2f"):
        check(paper, device_count=1)


def test_the_number_of_steps_matters_only_to_the_cosine_schedule(paper):
    cosine = changed(paper, optimizer__schedule="cosine")
    with pytest.raises(UserError, match="steps: 1000000 → 7"):
        resume(cosine, changed(cosine, steps=7))
    resume(cosine, changed(cosine, optimizer__halve_every=7))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model__blocks": 3}, "model.blocks: 8 → 3.*with config.init=runs/x, a new run starts"),
        ({"model__variant": "a2f-s"}, "model.features: 16 → 32; model.blocks: 8 → 4"),
        ({"model__head_kernel": 5}, "model.head_kernel: 3 → 5"),
        ({"optimizer__name": "muon"}, "optimizer.name: 'adam' → 'muon'"),
        ({"init": "nowhere"}, "init: '' → 'nowhere'"),
        ({"optimizer__freeze": "head"}, "optimizer.freeze: '' → 'head'"),
    ],
)
def test_settings_that_cannot_change_are_refused_without_offering_to_accept_them(paper, values, message):
    for accept in (False, True):
        with pytest.raises(UserError, match=message) as refused:
            resume(paper, changed(paper, **values), accept)
        assert refused.value.parameter is None
        assert "accept" not in str(refused.value)


@pytest.mark.parametrize("name", ["first", "./first/", "/runs/first"])
def test_the_weights_a_run_began_with_may_be_named_in_another_way(paper, name):
    resume(changed(paper, init="first"), changed(paper, init=name))


def test_settings_that_a_checkpoint_does_not_know_yet_do_not_count_as_changed(paper):
    before = paper.to_dict()
    del before["optimizer"]["clip_norm"]
    check_resume(before, changed(paper, optimizer__clip_norm=1.0), "runs/x", accept_changes=False)


def test_a_checkpoint_from_before_losses_could_be_chosen_counts_as_trained_with_the_only_one(paper):
    before = paper.to_dict()
    del before["loss"], before["optimizer"]["freeze"]
    check_resume(before, paper, "runs/x", accept_changes=False)
    for values, message in [({"loss": "l2"}, "loss: 'l1' → 'l2'"), ({"optimizer__freeze": "head"}, "freeze: '' → ")]:
        with pytest.raises(UserError, match=message):
            check_resume(before, changed(paper, **values), "runs/x", accept_changes=False)


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("lr", "optimizer.learning_rate"),
        ("learning_rate", "optimizer.learning_rate"),
        ("optimiser.learning_rate", "optimizer.learning_rate"),
        ("stps", "steps"),
        ("model.batch_size", "batch_size"),
    ],
)
def test_the_closest_setting_is_found(paper, name, closest):
    assert closest_settings(name, flat(paper))[0] == closest


def test_a_name_that_resembles_no_setting_has_no_closest_one(paper):
    assert closest_settings("zzz", flat(paper)) == []


def test_the_network_has_what_the_config_says_and_entries_of_its_own_are_ignored(paper):
    network = make_network(changed(paper, model__blocks=3, model__head_kernel=5, model__own=1), "cpu")
    assert (network.scale, network.features, network.blocks, network.head_kernel) == (4, 16, 3, 5)
    assert network.winograd
    assert not make_network(paper, "gpu").winograd


def test_entries_of_ones_own_may_have_any_key_and_be_beside_the_degradations():
    config = photo.get_config("sd_x4")
    config.own = ConfigDict({0: 1.0, 1: {"two": 3}})
    config.degradation.sinc_probability = 0.1
    assert settings.unknown_entries(config) == ["degradation.sinc_probability", "own.0", "own.1.two"]
    check(config, 1)
    assert degradation_of(config) == degradation_of(photo.get_config("sd_x4"))
    assert "own" not in stored(config)


def test_every_network_of_the_registry_has_runs_and_what_does_not_apply_to_it_is_refused():
    for name, peer in PEERS.items():
        for scale in peer.scales:
            config = peers.get_config(f"{name.replace('-', '_')}_x{scale}")
            config.model.dtype = "bfloat16"
            check(config, device_count=1)
            assert make_network(config, "cpu") == peer.make(scale).clone(dtype="bfloat16")
    config = peers.get_config("lapsrn_x4")
    with pytest.raises(UserError, match=r"config.model.blocks does not apply to LapSRN: remove it"):
        check(changed(config, model__blocks=3), device_count=1)
    with pytest.raises(UserError, match=r"config.model.scale=3 is invalid: LapSRN upscales by 2 or 4"):
        check(changed(config, model__scale=3), device_count=1)
    with pytest.raises(UserError, match=r"config.data.patch_size=14 is too small for BSRN: use at least 15"):
        check(changed(peers.get_config("bsrn_x2"), data__patch_size=14), device_count=1)


def test_a_run_cannot_resume_as_another_network(paper):
    now = peers.get_config("carn_m_x4")
    for before, after in ((paper, now), (now, paper), (now, changed(now, model__name="vdsr"))):
        with pytest.raises(UserError, match=r"cannot change when it resumes \(model.name: "):
            resume(before, after, accept_changes=True)
    resume(now, now)


def test_stored_settings_are_plain_numbers_without_entries_of_other_kinds(paper):
    config = changed(paper, seed=np.int64(3), optimizer__learning_rate=np.float32(0.5), own=pathlib.Path("x"))
    found = json.loads(json.dumps(stored(config)))
    assert found == stored(changed(paper, seed=3, optimizer__learning_rate=0.5))
    assert "own" not in found
    check_resume(found, config, "run", accept_changes=False)


def test_damaged_settings_of_a_run_are_refused(paper):
    with pytest.raises(UserError, match="the settings stored in run are damaged"):
        check_resume({"data": {"name": "photos"}}, paper, "run", accept_changes=True)
