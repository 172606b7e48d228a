"""Plans under different memory budgets."""

import pathlib
import re
import types

import pytest

from a2f_jax.errors import UserError
from a2f_jax.models.a2f import build
from a2f_jax.upscaling import plan
from a2f_jax.upscaling.plan import RUNTIME, canvas_bytes, make_plan, parse_bytes, state_bytes, workers, working_bytes

NETWORK = build("a2f-sd", 2)


@pytest.mark.parametrize(
    ("text", "value"),
    [("2GB", 2 << 30), ("512M", 512 << 20), ("1.5 GiB", 3 << 29), ("100", 100), ("64kb", 64 << 10), ("1tb", 1 << 40)],
)
def test_memory_sizes_are_parsed(text, value):
    assert parse_bytes(text) == value


@pytest.mark.parametrize("text", ["", "much", "-1GB", "2GBs", "1e9"])
def test_other_text_is_not_a_memory_size(text):
    with pytest.raises(UserError, match="use for example 2GB"):
        parse_bytes(text)


def test_states_stay_in_memory_as_long_as_they_fit():
    needed = RUNTIME + working_bytes(NETWORK, 800, 64, "cpu", workers("cpu")) + state_bytes(NETWORK, 600, 800, 64)
    assert make_plan(NETWORK, 600, 800, memory=needed, platform="cpu").place == "device"
    assert make_plan(NETWORK, 600, 800, memory=needed - 1, platform="cpu").place == "disk"
    assert make_plan(NETWORK, 600, 800, memory=needed, platform="cpu", reserved=1).place == "disk"
    assert make_plan(NETWORK, 600, 800, memory=needed, platform="cpu", images=2).place == "disk"


def test_states_of_a_photograph_under_1_gb():
    """9 states of 16 channels in float32: 13 GB."""
    assert state_bytes(NETWORK, 4000, 6000, 64) == pytest.approx(24e6 * 9 * 16 * 4, rel=0.02)
    assert make_plan(NETWORK, 4000, 6000, memory=1 << 30, platform="cpu", reserved=72_000_000).place == "disk"


@pytest.mark.parametrize(
    ("size", "canvas"),
    [
        ((1, 1), (64, 64)),
        ((64, 65), (64, 96)),
        ((180, 320), (192, 384)),
        ((540, 960), (768, 1024)),
        ((2048, 1537), (2048, 2048)),
        ((64, 2049), None),
    ],
)
def test_a_gpu_computes_images_as_a_whole_unless_they_are_large(size, canvas):
    memory = 80 << 30
    assert make_plan(NETWORK, *size, memory=memory, platform="gpu").canvas == canvas
    assert make_plan(NETWORK, *size, memory=memory, platform="gpu", side=64).canvas is None  # tiles are wanted
    assert make_plan(NETWORK, *size, memory=memory, platform="cpu").canvas is None


def test_a_gpu_with_little_memory_computes_tiles():
    needed = canvas_bytes(NETWORK, 768, 1024)
    assert make_plan(NETWORK, 540, 960, memory=needed, platform="gpu").canvas == (768, 1024)
    assert make_plan(NETWORK, 540, 960, memory=needed - 1, platform="gpu").canvas is None


def test_the_tile_size_can_be_chosen():
    assert make_plan(NETWORK, 600, 800, memory=8 << 30, platform="cpu", side=100).side == 104


def test_a_tile_is_not_much_larger_than_the_image():
    assert make_plan(NETWORK, 20, 24, memory=2 << 30, platform="cpu", side=4096).side == 64
    assert make_plan(NETWORK, 150, 24, memory=4 << 30, platform="cpu", side=4096).side == 192


@pytest.mark.parametrize("limit", [600, 800, 1000])
def test_what_the_process_already_takes_is_not_counted_twice(monkeypatch, limit):
    # In a container, what is free is what the process has not taken of its limit.
    monkeypatch.setattr(plan, "used_memory", lambda: 370 << 20)
    monkeypatch.setattr(plan, "free_memory", lambda: (limit - 370) << 20)
    cpu = types.SimpleNamespace(platform="cpu")
    assert make_plan(NETWORK, 180, 320, memory=plan.default_memory(cpu), platform="cpu")


def test_a_process_with_much_data_of_its_own_gets_no_more_than_what_is_free(monkeypatch):
    monkeypatch.setattr(plan, "used_memory", lambda: 50 << 30)
    monkeypatch.setattr(plan, "free_memory", lambda: 4 << 30)
    assert plan.default_memory(types.SimpleNamespace(platform="cpu")) - RUNTIME == 3 << 30


def test_too_little_memory_says_how_much_is_needed():
    with pytest.raises(
        UserError, match=r"100 MB of memory is too little for 800×600 pixels: at least \d+ MB is"
    ) as error:
        make_plan(NETWORK, 600, 800, memory=100 << 20, platform="cpu")
    enough = parse_bytes(re.search(r"at least (\d+ MB)", str(error.value))[1])
    assert make_plan(NETWORK, 600, 800, memory=enough, platform="cpu").place == "disk"
    with pytest.raises(UserError):
        make_plan(NETWORK, 600, 800, memory=enough - (1 << 20), platform="cpu")


@pytest.mark.parametrize(("size", "tiles"), [((64, 64), 1), ((65, 64), 2), ((130, 70), 6), ((400, 400), 8)])
def test_an_image_of_few_tiles_leaves_cores_to_others(monkeypatch, size, tiles):
    monkeypatch.setattr(plan, "usable_cores", lambda: 8)
    chosen = make_plan(NETWORK, *size, memory=8 << 30, platform="cpu")
    assert (chosen.workers, chosen.share) == (tiles, tiles / 8)
    assert make_plan(NETWORK, *size, memory=8 << 30, platform="gpu").share == 1


def test_an_image_that_takes_much_of_the_memory_leaves_less_of_it_to_others(monkeypatch):
    monkeypatch.setattr(plan, "usable_cores", lambda: 8)
    needed = working_bytes(NETWORK, 64, 64, "cpu", 1) + state_bytes(NETWORK, 64, 64, 64)
    for times in (2, 4):
        chosen = make_plan(NETWORK, 64, 64, memory=RUNTIME + times * needed, platform="cpu")
        assert (chosen.workers, chosen.share) == (1, 1 / times)
    assert make_plan(NETWORK, 64, 64, memory=RUNTIME + needed - 1, platform="cpu").share == 1  # states are on a disk
    half = make_plan(NETWORK, 64, 64, memory=RUNTIME + 4 * needed, platform="cpu", reserved=needed)
    assert half.share == 1 / 2


def test_fewer_tiles_are_computed_at_the_same_time_where_memory_is_short(monkeypatch):
    monkeypatch.setattr(plan, "usable_cores", lambda: 64)
    for count in (64, 10, 1):
        needed = RUNTIME + working_bytes(NETWORK, 800, 64, "cpu", count)
        assert make_plan(NETWORK, 600, 800, memory=needed, platform="cpu").workers == count
    with pytest.raises(UserError, match="too little"):
        make_plan(NETWORK, 600, 800, memory=needed - 1, platform="cpu")


def test_a_full_disk_is_noticed_before_the_work(set_free_space):
    set_free_space(27 << 30)
    make_plan(NETWORK, 4000, 6000, memory=1 << 30, platform="cpu")
    with pytest.raises(
        UserError, match=r"has 27 GB of free space, but upscaling 6000×4000 pixels takes 39\.1 GB: set TMPDIR"
    ):
        make_plan(NETWORK, 4000, 6000, memory=1 << 30, platform="cpu", images=3)
    set_free_space(1 << 30)
    with pytest.raises(UserError, match=r"takes 13\.1 GB: set TMPDIR"):
        make_plan(NETWORK, 4000, 6000, memory=1 << 30, platform="cpu")


@pytest.mark.parametrize(("free", "limit"), [(1000, "16"), (24, "12")])
def test_a_disk_is_filled_only_as_far_as_allowed(free, limit, set_free_space):
    set_free_space(free << 30)
    size = {"memory": 1 << 30, "platform": "cpu"}
    message = (
        rf"11808×3072 pixels need 19\.6 GB of temporary disk space in .*, which has {free} GB free, .* is {limit} GB"
    )
    with pytest.raises(UserError, match=message) as caught:
        make_plan(NETWORK, 3072, 11808, **size)
    assert caught.value.parameter == "disk"
    assert make_plan(NETWORK, 3072, 11808, **size, disk=20 << 30).place == "disk"
    with pytest.raises(UserError, match=r"the limit is 1 GB"):
        make_plan(NETWORK, 3072, 11808, **size, disk=1 << 30)


def test_concurrent_upscalers_share_the_memory_of_the_host(monkeypatch):
    working, states = working_bytes(NETWORK, 800, 64, "cpu", workers("cpu")), state_bytes(NETWORK, 600, 800, 64)
    needed = RUNTIME + 2 * (working + states)
    assert make_plan(NETWORK, 600, 800, memory=needed, platform="cpu", concurrent=2).place == "device"
    assert make_plan(NETWORK, 600, 800, memory=needed - 2, platform="cpu", concurrent=2).place == "disk"
    monkeypatch.setattr(plan, "free_memory", lambda: 4 * states)
    device = {"memory": working_bytes(NETWORK, 800, 64, "gpu", workers("gpu")), "platform": "gpu", "side": 64}
    assert make_plan(NETWORK, 600, 800, **device, concurrent=2).place == "host"
    assert make_plan(NETWORK, 600, 800, **device, concurrent=3).place == "disk"


@pytest.mark.parametrize(
    ("mounts", "chosen", "expected"),
    [
        ({"/": "ext4"}, None, "/tmp"),
        ({"/": "ext4", "/tmp": "tmpfs"}, None, "/var/tmp"),
        ({"/": "tmpfs"}, None, "/tmp"),
        ({"/": "ext4", "/tmp": "tmpfs"}, "/tmp", "/tmp"),
    ],
)
def test_states_are_not_stored_in_a_folder_in_memory(monkeypatch, mounts, chosen, expected):
    monkeypatch.setattr(plan.tempfile, "gettempdir", lambda: "/tmp")
    monkeypatch.delenv("TMPDIR", raising=False)
    if chosen:
        monkeypatch.setenv("TMPDIR", chosen)
    partitions = [types.SimpleNamespace(mountpoint=folder, fstype=kind) for folder, kind in mounts.items()]
    monkeypatch.setattr(plan.psutil, "disk_partitions", lambda all: partitions)
    assert make_plan(NETWORK, 4000, 6000, memory=1 << 30, platform="cpu").folder == pathlib.Path(expected)
