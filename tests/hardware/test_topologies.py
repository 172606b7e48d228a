"""Devices to compile for that this machine does not have."""

import importlib.util
import sys

import jax
import pytest

from a2f_jax.errors import UserError
from a2f_jax.hardware import ACCELERATORS, compile_only_devices, parse_target


@pytest.fixture(autouse=True, scope="module")
def initialized():
    """Fixes the number of CPU devices, which `cpu` would otherwise set to 1 if no test has used JAX before."""
    jax.devices()


@pytest.mark.parametrize(
    ("text", "hosts"),
    [("v4:2x2x1", 1), ("v5e", 1), ("v5e:16x16", 64), ("v5p:4x4x4", 16), ("v6e:2x4", 2), ("h100:8", 1), ("a100:4x8", 4)],
)
def test_a_slice_has_one_device_per_chip(text, hosts):
    target = parse_target(text)
    devices = compile_only_devices(target)
    assert len(devices) == target.device_count
    assert {device.platform for device in devices} == {target.accelerator.platform}
    assert len({device.process_index for device in devices}) == hosts


def test_all_known_devices_can_be_compiled_for():
    for name, accelerator in ACCELERATORS.items():
        (device,) = compile_only_devices(parse_target(name))
        assert accelerator.kind.replace("v5e", "v5 lite").replace("v6e", "v6 lite").replace("v5p", "v5") == (
            device.device_kind.upper() if name == "cpu" else device.device_kind
        )


def test_more_cpu_devices_than_jax_has_are_an_error():
    with pytest.raises(UserError, match="cpu:9: JAX was initialized with 8 CPU devices"):
        compile_only_devices(parse_target("cpu:9"))


@pytest.mark.parametrize("devices", ["v5e:2x2", "h100:8"])
def test_a_compiler_that_is_not_installed_is_an_error_with_the_remedy(devices, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    installable = r"install the compilers with the extra \[compile\]"
    remedies = {"linux": installable, "darwin": "the compilers exist for Linux only"}
    for system, remedy in remedies.items():
        monkeypatch.setattr(sys, "platform", system)
        with pytest.raises(UserError, match=f"cannot compile for {devices}: {remedy}"):
            compile_only_devices(parse_target(devices))
