"""`a2f export`."""

import os

import onnx
import pytest

from a2f_jax import cli


@pytest.mark.parametrize("suffix", [".onnx", ".stablehlo"])
def test_weights_are_exported_and_described(suffix, weights, tmp_path, capsys):
    target = tmp_path / f"model{suffix}"
    assert cli.main(["export", weights, "-o", str(target), "--input", "uint8", "--dtype", "float16"]) == 0
    assert capsys.readouterr().out == f"{target}: a2f-8x1 ×2, uint8 [N, H, W, 3] in 0..255\n"
    if suffix == ".onnx":
        graph = onnx.load(target).graph
        assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
        assert onnx.TensorProto.FLOAT16 in {constant.data_type for constant in graph.initializer}


def test_an_existing_export_is_replaced_only_on_request(weights, tmp_path, fails):
    target = tmp_path / "model.onnx"
    target.write_text("precious")
    assert "exists: choose another --output or pass --overwrite" in fails("export", weights, "-o", str(target))
    assert target.read_text() == "precious"
    assert cli.main(["export", weights, "-o", str(target), "--overwrite"]) == 0
    assert onnx.load(target).graph.node


def test_an_export_never_replaces_a_fifo(weights, tmp_path, fails):
    fifo = tmp_path / "model.onnx"
    os.mkfifo(fifo)
    assert "is not a regular file" in fails("export", weights, "-o", str(fifo), "--overwrite")
    assert fifo.is_fifo()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing", "-o", "model.pb"], "cannot export to model.pb: the file name must end in .onnx ("),
        (["missing", "-o", "model.onnx", "--dtype", "bfloat16"], "choose float32 or float16 (--dtype)"),
        (["missing", "-o", "/proc/none/model.onnx"], "cannot write to /proc/none"),
        (["missing", "-o", "model.onnx"], "no weights at missing"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_line(arguments, message, fails, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in fails("export", *arguments)
    assert not list(tmp_path.iterdir())


def test_weights_that_serve_several_scales_are_exported_for_one(several_scales, tmp_path, capsys, fails):
    target = str(tmp_path / "vdsr.onnx")
    assert "(--scale)" in fails("export", several_scales, "-o", target)
    assert cli.main(["export", several_scales, "-o", target, "--scale", "3"]) == 0
    assert "vdsr ×3" in capsys.readouterr().out
