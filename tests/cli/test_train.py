"""`a2f train`: configs, overrides and exit codes."""

import pathlib
import socket

import pytest

from a2f_jax import cli
from a2f_jax.cli.train import load_config, split_overrides
from a2f_jax.models.a2f import variant_of
from a2f_jax.training import loop
from a2f_jax.training.settings import check, check_resume, make_network

CONFIG = "configs/a2f.py:sd_x4"


def test_overrides_are_separated_from_unrecognized_arguments():
    arguments = [
        "--config.steps",
        "2",
        "x",
        "--config.init=a b",
        "--config.model.remat",
        "--foo",
        "--config.seed",
        "-1",
    ]
    overrides, unrecognized = split_overrides(arguments)
    assert overrides == ["--config.steps=2", "--config.init=a b", "--config.model.remat", "--config.seed=-1"]
    assert unrecognized == ["x", "--foo"]


@pytest.fixture
def trained(monkeypatch):
    """Returns a dictionary that receives what the command passes to `run_training`."""
    received = {}

    def train(config, workdir, **options):
        received.update(config=config, workdir=workdir, **options)
        return received.get("finished", True)

    monkeypatch.setattr(loop, "run_training", train)
    return received


def test_settings_are_overridden_with_a_space_or_an_equals_sign(trained):
    options = ["--config.steps", "2", "--config.optimizer.learning_rate=3", "--config.model.remat"]
    options += ["--config.validation.sets=('set5', 'photos/')"]
    assert cli.main(["train", "--config", CONFIG, "--workdir", "w", *options]) == 0
    config = trained["config"]
    assert (config.steps, config.optimizer.learning_rate, config.model.remat) == (2, 3.0, True)
    assert config.validation.sets == ("set5", "photos/")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("set5", ("set5",)),
        ("./my photos/", ("./my photos/",)),
        ("set5,set14", ("set5", "set14")),
        ("set5, ./my photos/", ("set5", "./my photos/")),
        ("('set5', 'photos/')", ("set5", "photos/")),
        ("'set5', 'photos/'", ("set5", "photos/")),
        ("()", ()),
    ],
)
def test_several_names_may_be_separated_by_commas(text, expected):
    assert load_config(CONFIG, [f"--config.validation.sets={text}"]).validation.sets == expected
    config = load_config("configs/photo.py:sd_x4", ["--config.degradation.jpeg_quality=40,90"])
    assert config.degradation.jpeg_quality == (40, 90)


WITH_LIST = """
from ml_collections import ConfigDict
from a2f_jax.configs import a2f

def get_config():
    config = a2f.get_config("sd_x4").to_dict()
    return ConfigDict({**config, "validation": {**config["validation"], "sets": ["set5"]}})
"""


@pytest.mark.parametrize("text", ["set14,b100", "('set14', 'b100')", "['set14', 'b100']"])
def test_a_list_in_a_config_of_ones_own_is_overridden_like_a_tuple(tmp_path, text):
    (tmp_path / "own.py").write_text(WITH_LIST)
    config = load_config(str(tmp_path / "own.py"), [f"--config.validation.sets={text}"])
    check(config, 1)
    assert list(config.validation.sets) == ["set14", "b100"]
    assert load_config(CONFIG, [f"--config.validation.sets={text}"]).validation.sets == ("set14", "b100")


def test_width_and_depth_are_those_of_the_variant_unless_they_are_overridden(trained):
    for options, name in [
        ((), "a2f-sd"),
        (("--config.model.variant=a2f-s",), "a2f-s"),
        (("--config.model.features=24",), "a2f-24x8"),
        (("--config.model.blocks", "3", "--config.model.head_kernel=5"), "a2f-16x3-head5"),
        (("--config.model.features=32", "--config.model.blocks=12"), "a2f-m"),
    ]:
        assert cli.main(["train", "--config", CONFIG, "--workdir", "w", *options]) == 0
        assert variant_of(make_network(trained["config"], "cpu")) == name


def test_a_run_that_was_asked_to_stop_has_an_exit_code_of_its_own(trained):
    trained["finished"] = False
    assert cli.main(["train", "--config", CONFIG, "--workdir", "w"]) == 75


def test_a_variant_that_a_config_of_ones_own_would_override_is_refused(fails, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from a2f_jax.configs import a2f\n\ndef get_config():\n    config = a2f.get_config()\n"
        "    config.model.blocks = 6\n    return config\n"
    )
    argv = ["train", "--config", str(tmp_path / "mine.py"), "--workdir", str(tmp_path / "run")]
    line = fails(*argv, "--config.model.variant=a2f-m")
    assert "variant=a2f-m has no effect, because" in line
    assert line.endswith("mine.py sets model.blocks: override it instead")
    overrides = ["--config.model.variant=a2f-m", "--config.model.blocks=12"]
    assert load_config(str(tmp_path / "mine.py"), overrides).model.blocks == 12


def test_paths_may_start_with_the_home_folder(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text("from a2f_jax.configs import a2f\n\ndef get_config(): return a2f.get_config()\n")
    assert cli.main(["train", "--config=~/mine.py", "--workdir=~/run"]) == 0
    assert trained["workdir"] == tmp_path / "run"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.lr=1", "unknown setting --config.lr; did you mean --config.optimizer.learning_rate?"),
        ("--config.model.depthwise=True", "does not have --config.model.depthwise: it belongs to other networks"),
        ("--config.model.features=x", "--config.model.features=x is invalid: it must be a positive integer"),
        ("--config.validation.sets=set5,", "it must be a tuple of names of datasets, such as ('set5', 'set14'), or on"),
        ("--config.model.blocks=0", "config.model.blocks=0 is invalid: it must be a positive integer"),
        ("--config.KEY=4", "unknown setting --config.KEY;"),
        ("--config.=3", "unknown setting --config.;"),
        ("--config.stps=1", "did you mean --config.steps or"),
        ("--config.optimiser.b1=1", "did you mean --config.optimizer.b1"),
        ("--config.zzz=1", "unknown setting --config.zzz; configs/a2f.py lists all settings"),
        ("--config.model.remat=yes", "--config.model.remat=yes is invalid: it must be True or False"),
        ("--config.batch_size=1000000000000", "it must be a positive integer, at most 2³¹ − 1"),
        ("--config.steps=many", "--config.steps=many is invalid: it must be a positive integer"),
        ("--config.seed", "--config.seed= is invalid: it must be an integer"),
        (
            "--config.optimizer.learning_rate=x",
            "learning_rate=x is invalid: it must be a finite number ≥ 0",
        ),
        ("--config.optimizer.learning_rate=-1", "config.optimizer.learning_rate=-1.0 is invalid: it must be a finite"),
        ("--config.model.head_kernel=4", "config.model.head_kernel=4 is invalid: it must be a positive odd integer"),
    ],
)
def test_a_wrong_override_gets_one_clear_line(override, message, fails, tmp_path):
    assert message in fails("train", "--config", CONFIG, "--workdir", str(tmp_path / "run"), override)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("localhost", "--coordinator localhost is not of the form HOST:PORT"),
        ("localhost:abc", "--coordinator localhost:abc is not of the form HOST:PORT"),
        (":1234", "is not of the form HOST:PORT"),
        ("localhost:0", "is not of the form HOST:PORT"),
        ("localhost:70000", "is not of the form HOST:PORT"),
        ("localhost:{port}", "port {port} of this machine is in use: pass a --coordinator with another port"),
    ],
)
def test_a_coordinator_that_cannot_be_used_gets_one_clear_line(address, message, fails, tmp_path):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        argv = ["train", "--config", CONFIG, "--workdir", str(tmp_path / "run"), "--distributed"]
        argv += ["--coordinator", address.format(port=port), "--processes", "1", "--process-id", "0"]
        assert message.format(port=port) in fails(*argv)


def test_a_config_file_without_a_setting_is_named(fails, tmp_path):
    config = tmp_path / "mine.py"
    config.write_text(
        "from a2f_jax.configs import a2f\n\ndef get_config():\n    config = a2f.get_config()\n    del config.spmd\n"
        "    return config\n"
    )
    assert "mine.py lacks spmd: start from" in fails("train", "--config", str(config), "--workdir", "w")


def test_the_flag_that_accepts_changes_is_offered(fails, monkeypatch):
    def train(config, workdir, accept_changes, profile):
        check_resume({**config.to_dict(), "seed": 7}, config, workdir, accept_changes)

    monkeypatch.setattr(loop, "run_training", train)
    line = fails("train", "--config", CONFIG, "--workdir", "w")
    assert line.endswith("seed: 7 → 0): use another work folder, or accept the changes (--accept-changes)")


def test_an_interrupted_run_exits_with_130(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "run_training", interrupted)
    assert cli.main(["train", "--config", CONFIG, "--workdir", "w"]) == 130


def test_installed_configs_are_found_without_a_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not pathlib.Path("configs").exists()
    assert load_config("configs/a2f.py:m_x2").model.variant == "a2f-m"
    assert load_config("sample.py").data.name == "sample"


def test_messages_name_the_config_as_it_was_passed(fails, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "configs/a2f.py:xl_x4: run 'xl_x4' does not exist" in fails(
        "train", "--config", "configs/a2f.py:xl_x4", "--workdir", "w"
    )
