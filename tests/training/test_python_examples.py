"""The Python examples of the documentation run, with a tiny dataset and network, and do what the text says."""

import copy
import pathlib
import re
import signal
import sys
import types

import numpy as np
import pytest

import a2f_jax
from a2f_jax import cli
from a2f_jax.cli.train import load_config
from a2f_jax.configs import a2f
from a2f_jax.images import write_rgb
from a2f_jax.models.a2f import A2F
from a2f_jax.training.monitor import Monitor

DOCS = pathlib.Path(__file__).parents[2] / "docs"


def example(page, heading):
    """Returns the first Python example under a heading."""
    section = (DOCS / page).read_text().partition(f"# {heading}\n")[2]
    return re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]


@pytest.fixture
def configs(config, tmp_path, monkeypatch):
    """Lists the configs that `a2f.get_config` returns from then on, all of a tiny run, in an empty current folder."""
    config.model.features, config.model.blocks = 4, 1
    config.steps, config.log_every, config.validate_every = 4, 2, 2
    made = []

    def get_config(run):
        assert re.fullmatch(r"sd_x4(,recipe=long)?", run)
        made.append(copy.deepcopy(config))
        return made[-1]

    monkeypatch.setattr(a2f, "get_config", get_config)
    monkeypatch.chdir(tmp_path)
    return made


def run(code, **names):
    exec(compile(code, "example", "exec"), names)
    return names


def test_training_returns_weights_history_and_whether_it_is_finished(configs):
    names = run(example("python.md", "Training from Python"), image=np.zeros((9, 8, 3), np.uint8))
    assert configs[0].optimizer.learning_rate == 5e-4
    assert names["result"].finished
    assert [row["step"] for row in names["result"].history] == [2, 4]


class Service(types.ModuleType):
    """Stands in for the client of a service, and remembers what is sent to it."""

    def __init__(self):
        super().__init__("service")
        self.started, self.sent, self.ended = [], [], 0

    def init(self, **options):
        self.started.append(options)
        return self

    def log(self, metrics, step):
        self.sent.append({"step": step, **metrics})

    def finish(self):
        self.ended += 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.finish()


@pytest.mark.parametrize(("heading", "module"), [("Weights & Biases", "wandb"), ("Trackio", "trackio")])
def test_a_service_gets_the_settings_and_the_history(configs, monkeypatch, heading, module):
    service = Service()
    monkeypatch.setitem(sys.modules, module, service)
    run(example("python.md", heading))
    (started,) = service.started
    assert started["project"] == "super-resolution"
    assert started["config"] == configs[0].to_dict()
    assert service.sent == a2f_jax.train(configs[0], "runs/sd_x4").history
    assert service.ended == 1


def test_early_stopping_waits_for_its_patience(config, configs, monkeypatch):
    psnr = iter([20.0, 22.0, 21.0, 22.0, 21.5, 21.0, 22.0, 23.0])
    monkeypatch.setattr("a2f_jax.training.loop.validate", lambda *_: (np.array([next(psnr), 0.5, 1]), None))
    config.steps, config.validate_every = 100, 1
    result = run(example("python.md", "Early stopping"))["result"]
    assert not result.finished
    assert result.history[-1]["step"] == 7  # the best score is the second, and five have followed it
    assert result.model.metadata["step"] == "7"  # of equal scores, the last


def test_a_sweep_compares_the_best_scores_of_its_runs(configs, capsys):
    best = run(example("python.md", "A sweep"))["best"]
    assert list(best) == [config.optimizer.learning_rate for config in configs] == [1e-2, 2e-2, 4e-2]
    for rate, psnr in best.items():
        assert a2f_jax.load(f"runs/rate-{rate:g}").metadata["validation_psnr"] == f"{psnr:.3f}"
    assert capsys.readouterr().out.startswith(f"{max(best, key=best.get)} {{")


def test_a_sweep_that_is_preempted_stops_and_goes_on_when_it_is_repeated(configs, monkeypatch, capsys):
    advance, runs = Monitor.advance, []

    def preempt(self, step):
        advance(self, step)
        runs.append(step)
        if len(runs) == 5:  # in the second run
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Monitor, "advance", preempt)
    with pytest.raises(SystemExit) as caught:
        run(example("python.md", "A sweep"))
    assert caught.value.code == 75
    assert len(configs) == 2
    assert len(run(example("python.md", "A sweep"))["best"]) == 3
    assert capsys.readouterr().out.count("{") == 1


def test_a_loss_of_ones_own_is_minimized(configs):
    names = run(example("python.md", "Losses"))
    hr = np.zeros((1, 4, 4, 3), np.float32)
    ramp = hr + np.arange(4, dtype=np.float32)[:, None]  # a slope of 1 across, an error of 1.5 on average
    assert float(names["l1_with_edges"](ramp, hr)) == pytest.approx(1.5 + 0.1)
    assert names["result"].finished


def test_scores_of_models_and_functions_make_one_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    write_rgb(tmp_path / "benchmark/Set5/HR/baby.png", pixels)
    frames = types.ModuleType("pandas")
    frames.DataFrame = lambda rows: [frames.rows.extend(rows)] and Columns(rows)
    frames.rows = []
    monkeypatch.setitem(sys.modules, "pandas", frames)
    run(example("python.md", "Evaluation"))
    assert [(row["model"], row["scale"], row["images"]) for row in frames.rows] == [("a2f-sd", 4, 1), ("nearest", 4, 1)]
    assert capsys.readouterr().out.startswith("[['a2f-sd', 'set5', ")


class Columns:
    """Selects columns as a data frame does."""

    def __init__(self, rows):
        self.rows = rows

    def __getitem__(self, columns):
        return [[row[column] for column in columns] for row in self.rows]


def test_the_checkpoints_of_a_run_are_averaged(configs, random_params):
    for seed in range(2):
        params = random_params(A2F(scale=2, features=4, blocks=1), seed)
        a2f_jax.save(a2f_jax.Model.from_params(params), f"runs/sd_x4/checkpoints/{seed}.safetensors")
    run(example("python.md", "Averaging weights"))
    assert a2f_jax.load("average.safetensors").variant == "a2f-4x1"


def test_a_config_of_ones_own_trains_what_it_says(data_dir, tmp_path):
    (tmp_path / "mine.py").write_text(example("extending.md", "Write a config of your own"))
    config = load_config(f"{tmp_path}/mine.py:2")
    assert (config.model.scale, config.model.features, config.model.blocks, config.loss) == (2, 24, 6, "fft")
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        write_rgb(tmp_path / f"benchmark/Set5/HR/{i}.png", pixels)
    options = {"data.name": "tiny", "data.dir": data_dir, "data.patch_size": 8, "batch_size": 8, "steps": 1}
    options |= {"validation.dir": tmp_path / "benchmark", "model.features": 4, "model.blocks": 1}
    overrides = [f"--config.{name}={value}" for name, value in options.items()]
    assert cli.main(["train", "--config", f"{tmp_path}/mine.py:2", "--workdir", f"{tmp_path}/run", *overrides]) == 0
    model = a2f_jax.load(tmp_path / "run")
    assert (model.variant, model.scale) == ("a2f-4x1", 2)
    assert '"set5/psnr"' in (tmp_path / "run/metrics.jsonl").read_text()


def test_a_training_loop_of_ones_own_lowers_the_loss_and_saves_weights(data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("A2F_DATA_DIR", str(data_dir))
    code = example("extending.md", "Write a training loop of your own")
    for part, instead in [
        ("steps, size = 2_000, 24", "steps, size, values = 20, 12, []"),
        ('"sample"', '"tiny"'),
        ("features=24, blocks=6", "features=8, blocks=1"),
        ("= update(params, state, batch)", "= update(params, state, batch); values.append(float(value))"),
    ]:
        assert part in code
        code = code.replace(part, instead)
    names = run(code)
    assert names["values"][-1] < 0.8 * names["values"][0]
    assert a2f_jax.load("mine.safetensors").variant == "a2f-8x1"
    assert "'dataset': 'tiny', 'model': 'a2f-8x1', 'scale': 2" in capsys.readouterr().out
