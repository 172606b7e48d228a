"""What a progress bar writes to a log file and to a terminal."""

import re
import sys

import pytest

from a2f_jax import progress
from a2f_jax.progress import progress_bar, say


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances only when the test sets it."""
    now = [1000.0]
    for module in ("tqdm.std", "tqdm._tqdm", "time"):
        if module in sys.modules and hasattr(sys.modules[module], "time"):
            monkeypatch.setattr(sys.modules[module], "time", lambda: now[0])
    return now


def test_a_log_gets_a_line_every_ten_seconds(clock, capsys):
    with progress_bar(total=100, unit="image", description="upscaling") as bar:
        for _ in range(100):
            clock[0] += 0.5  # 50 s in all
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 50 / progress.LOG_INTERVAL
    assert lines[0].startswith("upscaling: 2")
    assert lines[-1].startswith("upscaling: 100/100 images, 00:50 elapsed")
    assert "\r" not in "".join(lines)


def test_a_log_gets_no_line_when_the_work_is_short(clock, capsys):
    with progress_bar(total=3, unit="image") as bar:
        for _ in range(3):
            clock[0] += 1
            bar.update()
    assert capsys.readouterr().err == ""


def test_a_bar_can_be_hidden(clock, capsys):
    with progress_bar(total=3, unit="image", visible=False) as bar:
        clock[0] += 60
        bar.update(3)
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bar(total=3, unit="image", description="upscaling") as bar:
        bar.update(3)
    assert "upscaling: 100%" in capsys.readouterr().err


def test_a_message_does_not_break_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bar(total=3, unit="image", mininterval=0) as bar:
        bar.update(1)
        say("one image failed")
    # The bar is erased before the message and drawn again after it.
    assert re.search(r"1/3.*\r *\ra2f: one image failed\n.*1/3", capsys.readouterr().err, re.DOTALL)


def test_control_characters_in_a_message_are_escaped(capsys):
    say("left out: a\nb\x1b[31m")
    assert capsys.readouterr().err == "a2f: left out: a\\nb\\x1b[31m\n"
