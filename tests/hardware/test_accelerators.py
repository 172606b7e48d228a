"""The notation for devices, and their published properties."""

import re

import pytest

from a2f_jax.errors import UserError
from a2f_jax.hardware import ACCELERATORS, parse_target, roofline_seconds


@pytest.mark.parametrize(
    ("text", "kind", "count"),
    [
        ("v5e:16x16", "TPU v5e", 256),
        ("V5E", "TPU v5e", 1),
        ("v4:2x2x1", "TPU v4", 4),
        ("v5p:4x4x4", "TPU v5p", 64),
        ("h100:8", "NVIDIA H100 80GB HBM3", 8),
        ("h100:4x8", "NVIDIA H100 80GB HBM3", 32),
        ("rtx4090", "NVIDIA GeForce RTX 4090", 1),
        ("cpu:8", "CPU", 8),
    ],
)
def test_devices_are_written_as_name_and_shape(text, kind, count):
    target = parse_target(text)
    assert (target.accelerator.kind, target.device_count, target.name) == (kind, count, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b300", "not a known device: choose one of v4, v5e"),
        ("v5e:8", "a TPU v5e slice has 2 axes.*v5e:2x2"),
        ("v4:2x2", "a TPU v4 slice has 3 axes.*v4:2x2x1"),
        ("h100:", "for example, h100:8"),
        ("h100:2:4", "for example, h100:8"),
        ("h100:0", "for example, h100:8"),
        ("h100:1x2x3", "too many axes"),
        ("cpu:2x2", "too many axes.*cpu:8"),
        ("v6e:3x3", "the first two sides must be 1 or even"),
        ("v5e:16x32", "too large: use sides of at most 16"),
        ("cpu:99999", "too large: use sides of at most 64"),
        ("h100:999999", "at most 8960 devices"),
        ("missing.txtpb", "cannot read the target configuration missing.txtpb"),
    ],
)
def test_other_texts_are_errors_that_show_the_notation(text, message):
    with pytest.raises(UserError, match=message):
        parse_target(text)


def test_a_gpu_can_be_given_by_its_target_configuration(tmp_path):
    file = tmp_path / "a6000.txtpb"
    file.write_text(ACCELERATORS["l4"].target_config)
    target = parse_target(f"{file}:2")
    assert target.device_count == 2
    assert (target.accelerator.memory, target.accelerator.bandwidth) == (23034 << 20, 300e9)
    assert target.accelerator.kind == "NVIDIA L4"
    file.write_text("platform_name: 'CUDA'")
    with pytest.raises(UserError, match="not the target configuration of an NVIDIA GPU: gpu_device_info, "):
        parse_target(str(file))


@pytest.mark.parametrize(
    "field",
    [
        "device_memory_size",
        "memory_bandwidth",
        "threads_per_warp",
        "block_dim_limit_x",
        "shared_memory_per_block_optin",
        "cuda_compute_capability",
    ],
)
def test_a_target_configuration_without_a_field_that_the_compiler_needs_is_refused(tmp_path, field):
    """XLA ends the process without some of them."""
    file = tmp_path / "a6000.txtpb"
    file.write_text(ACCELERATORS["l4"].target_config.replace(field, "other"))
    with pytest.raises(UserError, match=rf": {field}[, ].*see those in https"):
        parse_target(str(file))


@pytest.mark.parametrize(
    ("line", "wrong"), [("device_memory_size: {}", 1), ("threads_per_warp: {}", 0), ("memory_bandwidth: {}", 0)]
)
def test_values_that_the_compiler_would_divide_by_are_checked(tmp_path, line, wrong):
    file = tmp_path / "a6000.txtpb"
    text = re.sub(line.format(r"\d+"), line.format(wrong), ACCELERATORS["l4"].target_config)
    assert line.format(wrong) in text
    file.write_text(text)
    with pytest.raises(UserError, match=rf"{line[:-4]} is missing or too small"):
        parse_target(str(file))


def test_the_name_of_a_file_may_contain_a_colon(tmp_path):
    file = tmp_path / "lab:a6000.txtpb"
    file.write_text(ACCELERATORS["l4"].target_config)
    assert parse_target(str(file)).device_count == 1
    assert parse_target(f"{file}:2").device_count == 2


def test_published_peaks_of_tensor_cores_follow_from_their_number_and_clock():
    # Dense bfloat16 operations per core and cycle, by NVIDIA's architecture whitepapers, and the boost clock in GHz of
    # the published peak.
    per_core = {"a100": (2048, 1.41), "h100": (4096, 1.83), "h200": (4096, 1.83), "l4": (1024, 2.04)}
    for name, (operations, clock) in per_core.items():
        accelerator = ACCELERATORS[name]
        cores = int(accelerator.target_config.split("core_count: ")[1].split()[0])
        assert cores * operations * clock * 1e9 == pytest.approx(accelerator.flops["bfloat16"], rel=0.01)
        assert accelerator.flops["float32"] == accelerator.flops["bfloat16"] / 2  # TF32


def test_the_roofline_is_the_slower_of_arithmetic_and_traffic():
    v5e = ACCELERATORS["v5e"]
    assert roofline_seconds(v5e, "bfloat16", 197e12, 1) == pytest.approx(1)
    assert roofline_seconds(v5e, "bfloat16", 1, 819e9) == pytest.approx(1)
    assert roofline_seconds(ACCELERATORS["cpu"], "float32", 1, 1) is None
