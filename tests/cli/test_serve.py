"""`a2f serve`; tests/demo has what the page does."""

import importlib.util
import shutil
import socket
import subprocess
import sys

import pytest

from a2f_jax import model
from a2f_jax.cli.serve import offered_models, shipped_models
from a2f_jax.errors import UserError
from a2f_jax.weights import shipped_weights


def test_what_cannot_be_served_is_said_in_one_line(fails, monkeypatch):
    monkeypatch.setattr("a2f_jax.demo.web_page.serve", lambda *_, **__: pytest.fail("the page was served"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1, port {port}: " in fails("serve", "--port", str(port))
    assert "choose another (--host)" in fails("serve", "--port", "0", "--host", "nowhere.invalid")
    assert "choose another (--host)" in fails("serve", "--port", "0", "--host", "192.0.2.1")  # of no machine (RFC 5737)
    for port in ("70000", "-1"):
        line = fails("serve", "--port", port)
        assert line.endswith(f"{port} is not a port: choose one of 1024..65535, or 0 for any that is free (--port)")
    line = fails("serve", "--port", "0", "--memory", "1")
    assert "1 byte of memory is too little for 8×8 pixels: at least " in line
    assert line.endswith(" is needed (--memory)")
    assert "no weights at missing" in fails("serve", "--port", "0", "--weights", "missing")


def test_weights_that_do_not_tell_their_scale_come_with_a_remedy(fails, monkeypatch):
    def load(*_):
        raise UserError("its weights of SRCNN do not tell their scale: pass one of 2, 3, 4", parameter="scale")

    monkeypatch.setattr(model, "load", load)
    line = fails("serve", "--port", "0", "--weights", "srcnn.npz")
    assert "with a2f convert FILE FILE.safetensors --scale SCALE, and use the result" in line


def test_the_page_offers_all_shipped_weights_by_kind_and_scale():
    models = shipped_models()
    assert next(iter(models)) == "automatic"  # which is chosen at first
    assert models.pop("automatic")[4] == ["a2f-sd-x4", "a2f-sd-x4-photo"]
    assert models["a2f-sd"] == {scale: [f"a2f-sd-x{scale}"] for scale in (2, 3, 4)}
    assert models["a2f-sd-photo"][4] == ["a2f-sd-x4-photo"]
    assert {name for scales in models.values() for (name,) in scales.values()} == set(shipped_weights())


def test_without_the_extra_the_remedy_is_named(fails, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'a2f_jax[demo]'" in fails("serve")


@pytest.mark.parametrize("module", ["a2f_jax.cli.serve", "a2f_jax.demo.web_page", "a2f_jax.upscaling.batch"])
def test_gradio_is_not_imported_before_it_is_needed(module):
    program = f"import sys, {module}; sys.exit('gradio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_weights_that_are_named_like_those_of_the_package_are_offered_beside_them(tmp_path):
    own = tmp_path / "a2f-sd"
    shutil.copy(shipped_weights()["a2f-sd-x4"], own)
    models = offered_models([str(own)])
    assert [*models] == [f"a2f-sd ({own})", *shipped_models()]
    assert models[f"a2f-sd ({own})"] == {4: [str(own)]}
    assert models["a2f-sd"] == shipped_models()["a2f-sd"]
