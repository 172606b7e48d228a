"""What of the machine this process may use."""

import os

import pytest

from a2f_jax import machine


def _control_group(folder, limit, used, cached, names):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cached}\n")


V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")


@pytest.mark.parametrize(
    ("own", "folder", "names"),
    [
        ("0::/", "", V2),
        ("0::/slice/job/step", "slice/job", V2),
        ("0::/only/on/the/host", "", V2),
        ("5:cpu,memory:/docker/12\n1:cpu:/\n0::/", "memory/docker/12", V1),
    ],
)
def test_the_limit_of_a_container_counts(own, folder, names, tmp_path, monkeypatch):
    (tmp_path / "own").write_text(own)
    monkeypatch.setattr(machine, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(machine, "_GROUPS", tmp_path / "groups")
    assert machine.free_memory() > 1000
    _control_group(tmp_path / "groups" / folder, "max", 300, 100, names)
    assert machine.free_memory() > 1000
    _control_group(tmp_path / "groups" / folder, 1000, 300, 100, names)
    assert machine.free_memory() == 800
    _control_group(tmp_path / "groups" / folder, 1000, 1300, 100, names)
    assert machine.free_memory() == 0


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/", {"cpu.max": "max 100000"}, 8),
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/slice/job", {"slice/job/cpu.max": "max 100000", "slice/cpu.max": "250000 100000"}, 3),
        ("0::/", {"cpu.max": "5000 100000"}, 1),
        ("0::/", {"cpu.max": "1600000 100000"}, 8),
        (
            "4:cpu,cpuacct:/docker/1",
            {"cpu/docker/1/cpu.cfs_quota_us": "400000", "cpu/docker/1/cpu.cfs_period_us": "100000"},
            4,
        ),
        (
            "4:cpu,cpuacct:/docker/1",
            {"cpu/docker/1/cpu.cfs_quota_us": "-1", "cpu/docker/1/cpu.cfs_period_us": "100000"},
            8,
        ),
        ("", {}, 8),
    ],
)
def test_the_cpu_limit_of_a_container_counts(own, files, cores, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "own").write_text(own)
    for name, content in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(content + "\n")
    monkeypatch.setattr(machine, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(machine, "_GROUPS", tmp_path / "groups")
    assert machine.usable_cores() == cores
