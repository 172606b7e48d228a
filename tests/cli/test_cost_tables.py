"""The command lines with `--compile-for`."""

import json
import re

import pytest

from a2f_jax.buckets import bucket_path
from a2f_jax.cli import main
from a2f_jax.hardware import ACCELERATORS, OutOfMemory, parse_target
from a2f_jax.training import step_costs

CONFIG = """
from a2f_jax.configs import a2f

def get_config(run="small"):
    config = a2f.get_config("sd_x2")
    config.model.features, config.model.blocks = 8, 1
    config.data.patch_size, config.data.name = 8, "missing"
    return config
"""


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "tiny.py"
    file.write_text(CONFIG)
    return str(file)


def test_the_step_of_a_pod_is_described_without_data_or_devices(config, tmp_path, capsys):
    figures = tmp_path / "figures.json"
    assert main(["train", "--config", config, "--compile-for", "v5e:16x16", "--json", str(figures)]) == 0
    out = capsys.readouterr().out
    assert "batch_size=16 cannot be split evenly among 256 devices: compiling for 256" in out
    assert "256 patches of 8×8 LR pixels, 1 per device" in out
    assert "% of 16 GB" in out
    for row in ("1 all-reduce of ", "estimated cycles", "host transfers        none", "FLOP per byte", "roofline"):
        assert row in out, row
    content = json.loads(figures.read_text())
    assert content["count"] == content["batch_size"] == 256
    assert content["fits"] is True
    assert content["program"]["collectives"]["all-reduce"]["times"] == 1


def test_a_step_that_does_not_fit_exits_with_2_and_says_what_would(config, tmp_path, capsys, monkeypatch):
    small = parse_target("cpu:8")
    small = small._replace(accelerator=small.accelerator._replace(kind="toaster", memory=1000))
    monkeypatch.setattr("a2f_jax.hardware.parse_target", lambda _: small)
    monkeypatch.setattr(step_costs, "ways_to_fit", lambda *_: [{"model.remat": True}, {"accumulate": 2}])
    figures = tmp_path / "figures.json"
    assert main(["train", "--config", config, "--compile-for", "toaster:8", "--json", str(figures)]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert re.search(
        r"does not fit into one toaster \(it needs [\d.]+ KB of memory, and 1000 bytes are available\): it",
        captured.err,
    )
    assert captured.err.endswith("it fits with --config.model.remat=True, or --config.accumulate=2\n")
    assert json.loads(figures.read_text())["ways_to_fit"] == ["--config.model.remat=True", "--config.accumulate=2"]


@pytest.mark.parametrize(
    ("side", "remedy"), [("4096", "pass a smaller --tile"), ("64", "choose a device with more memory")]
)
def test_a_tile_that_does_not_fit_exits_with_2_and_names_the_memory(side, remedy, fails, monkeypatch):
    def refuse(*_):
        raise OutOfMemory("it needs 18.11 GB of memory, and 15.75 GB are available")

    monkeypatch.setattr("a2f_jax.upscaling.tile_costs.tile_costs", refuse)
    assert fails("upscale", "--compile-for", "cpu", "--tile", side).endswith(
        f"a tile of {side} pixels does not fit into one CPU (it needs 18.11 GB of memory, and 15.75 GB are available): "
        f"{remedy}"
    )


def test_figures_are_written_to_a_bucket_once(config, bucket, capsys):
    command = ["train", "--config", config, "--compile-for", "cpu", "--json", f"{bucket}/costs/figures.json"]
    assert main(command) == 0
    assert json.loads(bucket_path(f"{bucket}/costs/figures.json").read_text())["kind"] == "CPU"
    assert main(command) == 2
    assert f"{bucket}/costs/figures.json exists: choose another --json" in capsys.readouterr().err


def test_the_tiles_of_a_device_are_described_without_an_image(capsys, tmp_path):
    figures = tmp_path / "figures.json"
    assert main(["upscale", "--compile-for", "h100", "--tile", "64", "--json", str(figures)]) == 0
    out = capsys.readouterr().out
    assert "Compiled the tile programs for one NVIDIA H100 80GB HBM3" in out
    assert "For a tile of 64×64 input pixels, a2f-sd ×4, float32:" in out
    content = json.loads(figures.read_text())
    assert set(content["runs"]) == set(content["programs"])
    assert content["side"] == 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--config", "configs/a2f.py:sd_x4"], "the following arguments are required: --workdir"),
        (["train", "--config", "configs/a2f.py:sd_x4", "--compile-for", "v9:2x2"], "'v9' is not a known device"),
        (["train", "--config", "configs/a2f.py:sd_x4", "--workdir", "w", "--json", "x"], "only for the figures of"),
        (["upscale"], "the following arguments are required: IMAGE"),
        (["upscale", "a.png", "--compile-for", "v5e"], "leave out images"),
        (["upscale", "--compile-for", "v5e", "--ensemble"], "leave out images"),
        (["train", "--config", "configs/a2f.py:sd_x4", "--compile-for", "h100", "--workdir", "w"], "does not train"),
        (["train", "--config", "configs/a2f.py:sd_x4", "--compile-for", "h100", "--processes", "3"], "does not train"),
        (["train", "--config", "configs/a2f.py:sd_x4", "--compile-for", "v5e:1000x1000"], "is too large"),
        (["upscale", "--compile-for", "v5e", "--json", "-"], "choose a name"),
        (["upscale", "--compile-for", "v5e", "--json", "/dev/null/x.json"], "/dev/null"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message, capsys):
    try:
        code = main(arguments)
    except SystemExit as error:  # from the parser
        code = error.code
    assert code == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_an_existing_json_file_is_not_replaced(config, tmp_path, capsys):
    file = tmp_path / "figures.json"
    file.write_text("mine")
    assert main(["train", "--config", config, "--compile-for", "h100", "--json", str(file)]) == 2
    assert f"{file} exists: choose another --json" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_the_help_names_all_known_devices(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    assert [name for name in ACCELERATORS if name not in text] == []


@pytest.mark.parametrize("option", [("--memory", "2GB"), ("--disk", "1GB")])
def test_limits_for_upscaling_are_refused(fails, option):
    assert "takes the memory of the device: leave out --memory and --disk" in fails(
        "upscale", "--compile-for", "cpu", *option
    )
