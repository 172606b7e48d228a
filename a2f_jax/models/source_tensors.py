"""The names and layouts of the tensors that the authors of other networks published, turned into ours.

Each function takes the tensors of a file by their published names, and the scale, which matters where a file serves
several; it returns ours by dotted name, and raises a `ValueError` that names the first tensor it does not know.
"""

import re
from collections.abc import Mapping

import numpy as np

Tensors = Mapping[str, np.ndarray]
FlatParams = dict[str, np.ndarray]


def _torch_leaf(leaf: str, value: np.ndarray, transposed: bool = False) -> tuple[str, np.ndarray]:
    """PyTorch's layout to ours: kernels `[out, in, h, w]`, of transposed convolutions `[in, out, h, w]`."""
    if leaf == "bias":
        return leaf, value
    if value.ndim == 1:
        return "slope", value
    return "kernel", value.transpose(2, 3, 0, 1) if transposed else value.transpose(2, 3, 1, 0)


def renamed(tensors: Tensors, names: Mapping[str, str], transposed: str | None = None) -> FlatParams:
    """Renames `<module>.weight` and `<module>.bias` by patterns; an empty name leaves the tensor out."""
    flat = {}
    for name, value in tensors.items():
        module, _, leaf = name.removeprefix("module.").rpartition(".")
        for pattern, ours in names.items():
            if match := re.fullmatch(pattern, module):
                if ours:
                    path = match.expand(ours)
                    leaf, converted = _torch_leaf(leaf, value, path == transposed)
                    flat[f"{path}.{leaf}"] = converted
                break
        else:
            raise ValueError(f"tensor {name!r} is not one of this network's")
    return flat


_CARN = {
    r"(sub|add)_mean\.shifter": "",
    r"(entry|exit)": r"\1",
    r"b([123])\.b([123])\.body\.0": r"block#\1.unit#\2.conv1",
    r"b([123])\.b([123])\.body\.2": r"block#\1.unit#\2.conv2",
    r"b([123])\.b([123])\.body\.4": r"block#\1.unit#\2.conv3",
    r"b([123])\.c([123])\.body\.0": r"block#\1.fuse#\2",
    r"c([123])\.body\.0": r"fuse#\1",
}


def _count_from_0(flat: FlatParams) -> FlatParams:
    """`#1` → `0`: the authors count from 1, we from 0."""
    return {re.sub(r"#(\d+)", lambda m: str(int(m[1]) - 1), name): value for name, value in flat.items()}


def carn_m_tensors(tensors: Tensors, scale: int) -> FlatParams:
    """CARN-M: the PyTorch state dict of the authors."""
    up = {
        rf"upsample\.up{scale}\.body\.0": "upsample0",
        rf"upsample\.up{scale}\.body\.3": "upsample1",
        r"upsample\.up\d\.body\.\d": "",  # of other scales
    }
    flat = _count_from_0(renamed(tensors, {**_CARN, **up}))
    # One unit serves the whole block.
    return {re.sub(r"unit\d", "unit", name): value for name, value in flat.items()}


# The tensors of the exported graph of CARN ×2, by their numbers.
_CARN_LEARNED = {
    4: "entry",
    **{
        6 + 18 * (b - 1) + 4 * (u - 1) + 2 * c: f"b{b}.b{u}.body.{2 * c}"
        for b in (1, 2, 3)
        for u in (1, 2, 3)
        for c in (0, 1)
    },
    **{18 + 18 * (b - 1) + 2 * (k - 1): f"b{b}.c{k}.body.0" for b in (1, 2, 3) for k in (1, 2, 3)},
    **{60 + 2 * (k - 1): f"c{k}.body.0" for k in (1, 2, 3)},
    66: "upsample.up.body.0",
    74: "exit",
}


def carn_tensors(tensors: Tensors, scale: int) -> FlatParams:
    """CARN: the PyTorch state dict of the authors, or the numbered tensors of the exported graph ×2."""
    if "learned_4" in tensors:
        names = {
            f"learned_{k + i}": f"{name}.{('weight', 'bias')[i]}" for k, name in _CARN_LEARNED.items() for i in (0, 1)
        }
        tensors = {names[name]: value for name, value in tensors.items() if name in names}
    return _count_from_0(renamed(tensors, {**_CARN, r"upsample\.up\.body\.0": "upsample0"}))


def imdn_tensors(tensors: Tensors, scale: int) -> FlatParams:
    """IMDN: the PyTorch state dict of the authors."""
    return _count_from_0(
        renamed(
            tensors,
            {
                "fea_conv": "head",
                r"IMDB(\d)\.c([1234])": r"block#\1.conv\2",
                r"IMDB(\d)\.cca\.conv_du\.0": r"block#\1.attention.squeeze",
                r"IMDB(\d)\.cca\.conv_du\.2": r"block#\1.attention.excite",
                r"IMDB(\d)\.c5": r"block#\1.mix",
                r"c\.0": "fuse",
                "LR_conv": "body",
                r"upsampler\.0": "tail",
            },
        )
    )


def fsrcnn_tensors(tensors: Tensors, scale: int) -> FlatParams:
    """FSRCNN: a PyTorch state dict as yjn870/FSRCNN-pytorch has it."""
    # Convolutions and PReLUs take turns.
    parts = ["shrink", *(f"map_{i}" for i in range(4)), "expand"]
    names = {r"first_part\.0": "extract", r"first_part\.1": "extract_prelu", "last_part": "deconv"}
    for i, part in enumerate(parts):
        names |= {rf"mid_part\.{2 * i}": part, rf"mid_part\.{2 * i + 1}": f"{part}_prelu"}
    return renamed(tensors, names, transposed="deconv")


def pan_tensors(tensors: Tensors, scale: int) -> FlatParams:
    """PAN: the PyTorch state dict of the authors."""
    flat = renamed(
        tensors,
        {
            "conv_first": "head",
            r"SCPA_trunk\.(\d+)\.conv1_([ab])": r"block_\1.split_\2",
            r"SCPA_trunk\.(\d+)\.k1\.0": r"block_\1.conv_a",
            r"SCPA_trunk\.(\d+)\.PAConv\.k2": r"block_\1.attention",
            r"SCPA_trunk\.(\d+)\.PAConv\.k3": r"block_\1.conv_b1",
            r"SCPA_trunk\.(\d+)\.PAConv\.k4": r"block_\1.conv_b2",
            r"SCPA_trunk\.(\d+)\.conv3": r"block_\1.mix",
            "trunk_conv": "body",
            r"upconv(\d)": r"up#\1_conv1",
            r"att(\d)\.conv": r"up#\1_attention",
            r"HRconv(\d)": r"up#\1_conv2",
            "conv_last": "tail",
        },
    )
    return {re.sub(r"block_(\d)\.", r"block_0\1.", name): value for name, value in _count_from_0(flat).items()}


def rlfn_tensors(tensors: Tensors, scale: int) -> FlatParams:
    """RLFN: the PyTorch state dict of the authors."""
    return _count_from_0(
        renamed(
            tensors,
            {
                "conv_1": "head",
                r"block_(\d)\.c([123])_r": r"block#\1.conv\2",
                r"block_(\d)\.c5": r"block#\1.mix",
                r"block_(\d)\.esa\.(conv\w+)": r"block#\1.esa.\2",
                "conv_2": "body",
                r"upsampler\.0": "tail",
            },
        )
    )


def bsrn_tensors(tensors: Tensors, scale: int) -> FlatParams:
    """BSRN: the PyTorch state dict of the authors."""
    parts = {"pw": "pointwise", "dw": "depthwise"}
    flat = renamed(
        tensors,
        {
            r"fea_conv\.(pw|dw)": r"head.<\1>",
            r"B(\d)\.c([123])_d": r"block#\1.distill\2",
            r"B(\d)\.c([123])_r\.(pw|dw)": r"block#\1.refine\2.<\3>",
            r"B(\d)\.c4\.(pw|dw)": r"block#\1.refine4.<\2>",
            r"B(\d)\.c5": r"block#\1.mix",
            r"B(\d)\.esa\.(conv1|conv_f|conv4)": r"block#\1.esa.\2",
            r"B(\d)\.esa\.(conv2|conv_max|conv3|conv3_)\.(pw|dw)": r"block#\1.esa.\2.<\3>",
            r"B(\d)\.cca\.conv_du\.0": r"block#\1.attention.squeeze",
            r"B(\d)\.cca\.conv_du\.2": r"block#\1.attention.excite",
            "c1": "fuse",
            r"c2\.(pw|dw)": r"body.<\1>",
            r"upsampler\.upsampleOneStep\.0": "tail",
        },
    )
    return _count_from_0({re.sub(r"<(pw|dw)>", lambda m: parts[m[1]], name): value for name, value in flat.items()})


def idn_tensors(tensors: Tensors, scale: int) -> FlatParams:
    """IDN: the Caffe model of the authors."""
    as_torch = {re.sub(r"\.0$", ".weight", re.sub(r"\.1$", ".bias", name)): value for name, value in tensors.items()}
    flat = renamed(
        as_torch,
        {
            "conv1": "head1",
            "conv2": "head2",
            r"conv(\d)_(\d)": r"block<\1>.conv\2",
            r"down(\d)": r"block#\1.compress",
            "upsample": "deconv",
        },
        transposed="deconv",
    )
    # The first block's layers are called conv3_1 to conv3_6.
    flat = {re.sub(r"<(\d)>", lambda m: str(int(m[1]) - 3), name): value for name, value in flat.items()}
    return _count_from_0(flat)


_LAPSRN = {"upconv": "up", "residual_conv": "residual", "img_up": "image_up"}


def lapsrn_tensors(tensors: Tensors, scale: int) -> FlatParams:
    """LapSRN: the MatConvNet model of the authors."""
    flat = {}
    levels = scale.bit_length() - 1
    for name, value in tensors.items():
        module, _, leaf = name.rpartition("_")
        if match := re.fullmatch(r"level(\d)_(?:conv(\d+)|(upconv|residual_conv|img_up))", module):
            part = f"conv{int(match[2]) - 1}" if match[2] else _LAPSRN[match[3]]
            path = f"level{levels - int(match[1])}_{part}"  # counted from the end
        elif module == "input_conv":
            path = "head"
        else:
            raise ValueError(f"tensor {name!r} is not one of this network's")
        if leaf == "b":
            flat[f"{path}.bias"] = value.reshape(-1)
        elif path == "head":  # MATLAB drops axes of length 1
            flat[f"{path}.kernel"] = value[:, :, None]
        elif path.endswith("residual"):
            flat[f"{path}.kernel"] = value[..., None]
        elif path.endswith("image_up"):
            flat[f"{path}.kernel"] = value[:, :, None, None]
        else:  # MatConvNet has the outputs of transposed convolutions before the inputs
            flat[f"{path}.kernel"] = value.transpose(0, 1, 3, 2) if path.endswith("up") else value
    return flat


def vdsr_tensors(tensors: Tensors, scale: int) -> FlatParams:
    """VDSR: the MATLAB file of the authors."""
    flat = {}
    for name, value in tensors.items():
        leaf, _, number = name.partition("_")
        path = f"conv{int(number):02d}"
        if leaf == "bias":
            flat[f"{path}.bias"] = value.reshape(-1)
        else:
            flat[f"{path}.kernel"] = value if value.ndim == 4 else value[..., None]
    return flat


def drrn_tensors(tensors: Tensors, scale: int) -> FlatParams:
    """DRRN: the four tensors of an exported graph."""
    names = ("head", "conv1", "conv2", "tail")
    return {f"{name}.kernel": tensors[f"learned_{i}"].transpose(2, 3, 1, 0) for i, name in enumerate(names)}


def srcnn_tensors(tensors: Tensors, scale: int) -> FlatParams:
    """SRCNN: the MATLAB file of the authors."""

    def taps(value: np.ndarray, size: int, axis: int) -> np.ndarray:
        """Splits an axis of taps, which run down the columns, into rows and columns in front."""
        value = np.moveaxis(value, axis, 0)
        return value.reshape(size, size, *value.shape[1:]).swapaxes(0, 1)

    return {
        "conv1.kernel": taps(tensors["weights_conv1"], 9, 0)[:, :, None],
        "conv2.kernel": taps(tensors["weights_conv2"], 5, 1),
        "conv3.kernel": taps(tensors["weights_conv3"], 5, 1)[..., None],
        **{f"conv{i}.bias": tensors[f"biases_conv{i}"] for i in (1, 2, 3)},
    }


def falsr_tensors(tensors: Tensors, scale: int) -> FlatParams:
    """FALSR: the frozen TensorFlow graph of the authors."""
    flat = {}
    for name, value in tensors.items():
        _, *path, leaf = name.split("/")
        if leaf.startswith("Const"):
            continue  # the way back to RGB, which is the same for all
        leaf = "bias" if leaf.startswith("b") else "kernel"
        whole = "/".join(path)
        if match := re.fullmatch(r"(cell\d)/\w+?_(conv_supple|b(\d)_conv_1|b(\d)depth_wise|b(\d)_conv_2|b(\d))", whole):
            cell, _, widen, depthwise, narrow, conv = match.groups()
            numbered = {"widen": widen, "depthwise": depthwise, "narrow": narrow, "conv": conv}
            ours = next((f"{kind}{number}" for kind, number in numbered.items() if number is not None), "linear")
            path = [cell, ours]
        else:
            path = [{"n32s1/c": "head", "n32s1/2/0": "body", "yout": "tail"}[whole]]
        swapped = path[-1].startswith("depthwise") and leaf == "kernel"  # [3, 3, C, 1]
        flat[".".join([*path, leaf])] = value.transpose(0, 1, 3, 2) if swapped else value
    return flat
