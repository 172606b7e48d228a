"""Plans under different memory budgets."""

import re

import pytest

from a2f_jax.errors import UserError
from a2f_jax.models.a2f import build
from a2f_jax.upscaling import plan
from a2f_jax.upscaling.plan import RUNTIME, make_plan, parse_bytes, state_bytes, working_bytes

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
    needed = RUNTIME + working_bytes(NETWORK, 800, 64, "cpu") + state_bytes(NETWORK, 600, 800, 64)
    assert make_plan(NETWORK, 600, 800, memory=needed, platform="cpu").place == "device"
    assert make_plan(NETWORK, 600, 800, memory=needed - 1, platform="cpu").place == "disk"
    assert make_plan(NETWORK, 600, 800, memory=needed, platform="cpu", reserved=1).place == "disk"
    assert make_plan(NETWORK, 600, 800, memory=needed, platform="cpu", images=2).place == "disk"


def test_states_of_a_photograph_under_1_gb():
    """9 states of 16 channels in float32: 13 GB."""
    assert state_bytes(NETWORK, 4000, 6000, 64) == pytest.approx(24e6 * 9 * 16 * 4, rel=0.02)
    assert make_plan(NETWORK, 4000, 6000, memory=1 << 30, platform="cpu", reserved=72_000_000).place == "disk"


def test_the_tile_size_can_be_chosen():
    assert make_plan(NETWORK, 600, 800, memory=8 << 30, platform="cpu", side=100).side == 104


def test_too_little_memory_says_how_much_is_needed():
    with pytest.raises(UserError, match=r"100MB of memory is too little for 800×600 pixels: at least (\d+)MB") as error:
        make_plan(NETWORK, 600, 800, memory=100 << 20, platform="cpu")
    enough = int(re.search(r"at least (\d+)MB", str(error.value))[1])
    assert make_plan(NETWORK, 600, 800, memory=enough << 20, platform="cpu").place == "disk"


def test_a_full_disk_is_noticed_before_the_work(monkeypatch):
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 27 << 30}))
    make_plan(NETWORK, 4000, 6000, memory=1 << 30, platform="cpu")
    with pytest.raises(UserError, match=r"no room for 39\.0 GB"):
        make_plan(NETWORK, 4000, 6000, memory=1 << 30, platform="cpu", images=3)
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 30}))
    with pytest.raises(UserError, match=r"no room for 13\.0 GB of intermediate values: set TMPDIR"):
        make_plan(NETWORK, 4000, 6000, memory=1 << 30, platform="cpu")


@pytest.mark.parametrize(("free", "limit"), [(1000, "16.0"), (24, "12.0")])
def test_a_disk_is_filled_only_as_far_as_allowed(free, limit, monkeypatch):
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free << 30}))
    size = {"memory": 1 << 30, "platform": "cpu"}
    message = rf"11808×3072 pixels need 20GB of temporary disk space in .*, which has {free}GB free, .* is {limit}GB"
    with pytest.raises(UserError, match=message) as caught:
        make_plan(NETWORK, 3072, 11808, **size)
    assert caught.value.parameter == "disk"
    assert make_plan(NETWORK, 3072, 11808, **size, disk=20 << 30).place == "disk"
    with pytest.raises(UserError, match=r"the limit is 1\.0GB"):
        make_plan(NETWORK, 3072, 11808, **size, disk=1 << 30)
