"""The checks and timings on one GPU."""

import importlib
import json
import pathlib
import sys

import numpy as np
import pytest

from a2f_jax.models import convolution


@pytest.fixture
def one_gpu(monkeypatch):
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("one_gpu")


def test_updates_of_the_two_forms_of_the_convolution_agree_and_those_of_another_step_do_not(one_gpu, monkeypatch):
    winograd = one_gpu.updates(one_gpu.REHEARSAL)
    monkeypatch.setattr(convolution, "prefers_winograd", lambda platform, dtype: False)
    direct = one_gpu.updates(one_gpu.REHEARSAL)
    found = one_gpu.compare(winograd, direct, exact=True)
    assert found["agree"] and 0 < found["device_from_cpu"] < found["tolerance"]

    changed = {name: np.abs(change).max() for name, change in direct.items() if name.startswith("shard_map")}
    assert min(changed.values()) > 0  # every parameter takes part
    name = max(changed, key=changed.__getitem__)
    wrong = one_gpu.compare(winograd, {**direct, name: 1.01 * direct[name]}, exact=True)
    assert not wrong["agree"] and wrong["least_equal_parameter"] == name
    for broken in {**winograd, name: np.nan * winograd[name]}, {**winograd, "pmap" + name[9:]: np.nan * winograd[name]}:
        assert not one_gpu.compare(broken, direct, exact=False)["agree"]
    broken = {**winograd, name: np.nextafter(winograd[name], np.float32(np.inf))}
    assert not one_gpu.compare(broken, direct, exact=True)["agree"]  # pmap and shard_map have to give the same bits
    assert one_gpu.compare(broken, direct, exact=False)["agree"]  # but on a GPU


def test_an_upscaled_photograph_agrees_only_within_a_hundredth_of_a_level(one_gpu):
    result = one_gpu.upscaled()
    assert result["tiles"].shape == (480, 560, 3)
    found = one_gpu.compare_upscaled(result, result)
    assert found["agree"] and 0 < found["tiles_from_whole"] < 1e-3 and found["device_from_cpu"] == 0
    for form in result:
        assert not one_gpu.compare_upscaled({**result, form: result[form] + 0.02}, result)["agree"]
        assert not one_gpu.compare_upscaled({**result, form: np.nan * result[form]}, result)["agree"]
        assert not one_gpu.compare_upscaled(result, {**result, form: np.nan * result[form]})["agree"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "nothing"], "nothing ×4 is not prepared in "),
        (["--dataset", "set5"], "set5 has no split 'train'"),
        (["--data-dir", "none"], "none, which does not exist"),
        (["--init", "a2f-ds-x4"], "no weights at a2f-ds-x4: did you mean a2f-s"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_the_timings(one_gpu, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("A2F_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(one_gpu, "agreement", lambda *_: pytest.fail("the work started"))
    monkeypatch.setattr(sys, "argv", ["one_gpu.py", "--output", "gpu", "--rehearse", *options])
    with pytest.raises(SystemExit) as stop:
        one_gpu.main()
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "gpu").exists()


def test_a_run_that_resumes_has_the_length_that_was_planned_first(one_gpu, tmp_path):
    rows = [
        {"variant": "a2f-m", "jax_ms": 4.0, "batch": 64, "dtype": "float32", "compile_s": 1.0},
        {"variant": "a2f-sd", "jax_ms": 4.0, "batch": 16, "dtype": "float32", "compile_s": 1.0},
        {"variant": "a2f-sd", "jax_ms": 8.0, "batch": 64, "dtype": "float32", "compile_s": 10.0},
        {"variant": "a2f-sd", "jax_ms": 1.0, "batch": 64, "dtype": "bfloat16", "compile_s": 10.0},
    ]
    with pytest.raises(SystemExit, match="20 seconds are left for training, which is too few: pass more --minutes"):
        one_gpu.planned_steps(tmp_path / "plan.json", {"rows": rows}, one_gpu.REAL, seconds=40)
    plan = tmp_path / "plan.json"
    # Nine tenths of the 80 seconds that two compilations leave, at 8 ms, in multiples of 400.
    assert one_gpu.planned_steps(plan, {"rows": rows}, one_gpu.REAL, seconds=100) == 8800
    assert one_gpu.planned_steps(plan, {"rows": rows}, one_gpu.REAL, seconds=10) == 8800


def test_without_a_timing_of_its_batch_no_run_is_planned(one_gpu, tmp_path):
    other = {"variant": "a2f-sd", "jax_ms": 4.0, "batch": 16, "dtype": "float32", "compile_s": 1.0}
    for timings in (None, {"rows": [other]}):
        with pytest.raises(SystemExit, match="no timing of a2f-sd with batches of 64"):
            one_gpu.planned_steps(tmp_path / "plan.json", timings, one_gpu.REAL, seconds=100)


def test_the_summary_says_when_devices_do_not_agree_and_leaves_out_what_was_not_measured(one_gpu, tmp_path):
    updates = {"pmap_from_shard_map": 0.0, "device_from_cpu": 0.5, "tolerance": 2e-3, "agree": False}
    pictures = {"tiles_from_whole": 0.0, "device_from_cpu": 0.0, "agree": True}
    (tmp_path / "agreement.json").write_text(json.dumps({"updates": updates, "upscaled": pictures}))
    text = one_gpu.summary(tmp_path)
    assert text.count("THEY DO NOT AGREE") == 1 and text.count("they agree") == 1 and "5.0e-01" in text
    assert "Upscaling" not in text and "validation" not in text


def test_results_in_the_repository_give_the_table_of_the_page(one_gpu):
    root = pathlib.Path(__file__).parents[2]
    page = (root / "docs/training.md").read_text()
    assert f"<!-- one-gpu -->\n{one_gpu.summary(root / 'docs/results/one_gpu').strip()}\n<!-- /one-gpu -->" in page
