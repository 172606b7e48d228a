"""The networks that A2F is compared with, by name. A new one is a file beside this one and an entry here."""

import contextlib
import difflib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax.numpy as jnp
import numpy as np

from a2f_jax.models import source_tensors
from a2f_jax.models.a2f import Params
from a2f_jax.models.awsrn import AWSRN
from a2f_jax.models.awsrn import FORMS as AWSRN_FORMS
from a2f_jax.models.bsrn import BSRN
from a2f_jax.models.carn import CARN
from a2f_jax.models.color import LumaNetwork
from a2f_jax.models.dbpn import DBPN
from a2f_jax.models.drcn import DRCN
from a2f_jax.models.drrn import DRRN
from a2f_jax.models.edsr import EDSR
from a2f_jax.models.falsr import FALSR
from a2f_jax.models.fsrcnn import FSRCNN
from a2f_jax.models.idn import IDN
from a2f_jax.models.imdn import IMDN
from a2f_jax.models.lapsrn import LapSRN
from a2f_jax.models.memnet import MemNet
from a2f_jax.models.msrn import MSRN
from a2f_jax.models.pan import PAN
from a2f_jax.models.rcan import RCAN
from a2f_jax.models.rlfn import RLFN
from a2f_jax.models.selnet import SelNet
from a2f_jax.models.source_tensors import FlatParams, Tensors
from a2f_jax.models.srcnn import SRCNN
from a2f_jax.models.srdensenet import SRDenseNet
from a2f_jax.models.srfbn import FORMS as SRFBN_FORMS
from a2f_jax.models.srfbn import SRFBN
from a2f_jax.models.srmd import SRMDNF
from a2f_jax.models.vdsr import VDSR


def _any(scales: tuple[int, ...]) -> Callable[[Tensors], tuple[int, ...]]:
    return lambda _: scales


def by_sub_pixels(name: str) -> Callable[[Tensors], tuple[int, ...]]:
    """The scale is seen in the last convolution, which has 3 · scale² channels."""
    return lambda tensors: (round((_find(tensors, name).shape[0] / 3) ** 0.5),)


def _find(tensors: Tensors, name: str) -> np.ndarray:
    return tensors[name] if name in tensors else tensors[f"module.{name}"]


class ScaleError(ValueError):
    """Weights that do not tell their scale were read without one, or with one that they do not serve."""


class Published(NamedTuple):
    """How weights that were published are recognized and read.

    Attributes:
      signature: a tensor's name and shape, which no other network's file has.
      convert: turns the tensors into ours, see `a2f_jax.models.source_tensors`.
      scales: from a file's tensors, the scales that it may serve.
      source: where the file comes from. What is not a PyTorch file has to be saved as `.npz`, with its tensors' names.
    """

    signature: Mapping[str, tuple[int, ...]]
    convert: Callable[[Tensors, int], FlatParams]
    scales: Callable[[Tensors], tuple[int, ...]]
    source: str


class Peer(NamedTuple):
    """A network that A2F is compared with.

    Attributes:
      title: the name as papers print it.
      make: from a scale to the network, `[N, H, W, 3]` → `[N, scale · H, scale · W, 3]`, RGB in 0..255.
      scales: the upscaling factors that it exists for.
      published: how its published weights are read; empty if there are none.
    """

    title: str
    make: Callable[[int], nn.Module]
    scales: tuple[int, ...] = (2, 3, 4)
    published: tuple[Published, ...] = ()

    @property
    def luma(self) -> bool:
        """Whether the network upscales Y only, and chroma is interpolated."""
        return isinstance(self.make(self.scales[0]), LumaNetwork)


def _falsr(variant: str, first_cell: str, shape: tuple[int, ...]) -> Peer:
    signature = {f"test_sr_evaluator_i1_b0_g/cell0/{first_cell}": shape}
    return Peer(
        f"FALSR-{variant.upper()}",
        lambda scale: FALSR(scale, variant=variant),
        scales=(2,),
        published=(
            Published(
                signature,
                source_tensors.falsr_tensors,
                _any((2,)),
                "TensorFlow graph of github.com/xiaomi-automl/FALSR",
            ),
        ),
    )


PEERS: dict[str, Peer] = {
    "srcnn": Peer(
        "SRCNN",
        SRCNN,
        published=(
            Published(
                {"weights_conv1": (81, 64)},
                source_tensors.srcnn_tensors,
                _any((2, 3, 4)),
                "MATLAB file of github.com/Cuda-Chen/SRCNN-cpp",
            ),
        ),
    ),
    "fsrcnn": Peer(
        "FSRCNN",
        FSRCNN,
        published=(
            Published(
                {"mid_part.10.weight": (56, 12, 1, 1)},
                source_tensors.fsrcnn_tensors,
                _any((2, 3, 4)),
                "PyTorch file of github.com/yjn870/FSRCNN-pytorch",
            ),
        ),
    ),
    "vdsr": Peer(
        "VDSR",
        VDSR,
        published=(
            Published(
                {"weight_20": (3, 3, 64)},
                source_tensors.vdsr_tensors,
                _any((2, 3, 4)),
                "MATLAB file of github.com/huangzehao/caffe-vdsr",
            ),
        ),
    ),
    "drcn": Peer("DRCN", DRCN),
    "drrn": Peer(
        "DRRN",
        DRRN,
        published=(
            Published(
                {"learned_2": (128, 128, 3, 3)},
                source_tensors.drrn_tensors,
                _any((2, 3, 4)),
                "graph of github.com/WolframRhodium/Super-Resolution-Zoo",
            ),
        ),
    ),
    "lapsrn": Peer(
        "LapSRN",
        LapSRN,
        scales=(2, 4),
        published=(
            Published(
                {"level1_img_up_f": (4, 4)},
                source_tensors.lapsrn_tensors,
                lambda tensors: (4 if "level2_img_up_f" in tensors else 2,),
                "MatConvNet model of github.com/phoenix104104/LapSRN",
            ),
        ),
    ),
    "memnet": Peer("MemNet", MemNet),
    "srdensenet": Peer("SRDenseNet", SRDenseNet, scales=(4,)),
    "idn": Peer(
        "IDN",
        IDN,
        published=(
            Published(
                {"conv3_1.0": (48, 64, 3, 3)},
                source_tensors.idn_tensors,
                _any((2, 3, 4)),
                "Caffe model of github.com/Zheng222/IDN-Caffe",
            ),
        ),
    ),
    "carn": Peer(
        "CARN",
        CARN,
        published=(
            Published(
                {"learned_66": (256, 64, 3, 3)},
                source_tensors.carn_tensors,
                _any((2,)),
                "graph of github.com/WolframRhodium/Super-Resolution-Zoo",
            ),
            Published(
                {"b1.b3.body.2.weight": (64, 64, 3, 3)},
                source_tensors.carn_tensors,
                _any((2, 3, 4)),
                "PyTorch file of github.com/nmhkahn/CARN-pytorch",
            ),
        ),
    ),
    "carn-m": Peer(
        "CARN-M",
        functools.partial(CARN, efficient=True),
        published=(
            Published(
                {"b1.b1.body.4.weight": (64, 64, 1, 1)},
                source_tensors.carn_m_tensors,
                _any((2, 3, 4)),
                "PyTorch file of github.com/nmhkahn/CARN-pytorch",
            ),
        ),
    ),
    "falsr-a": _falsr("a", "conv_f64_k3_b4_isskip_b0/kernel", (3, 3, 32, 64)),
    "falsr-b": _falsr("b", "invertBotConE2_f16_k3_b1_isskip_conv_supple/kernel", (1, 1, 32, 16)),
    "falsr-c": _falsr("c", "groupConG2_f32_k1_b1_noskip_b0/W", (1, 1, 16, 32)),
    "selnet": Peer("SelNet", SelNet),
    "srmdnf": Peer("SRMDNF", SRMDNF),
    "msrn": Peer("MSRN", MSRN),
    **{
        name: Peer(name.upper(), lambda scale, form=form: AWSRN(scale, *form))  # type: ignore[misc]
        for name, form in AWSRN_FORMS.items()
    },
    **{
        name: Peer(name.upper(), lambda scale, form=form: SRFBN(scale, *form))  # type: ignore[misc]
        for name, form in SRFBN_FORMS.items()
    },
    "d-dbpn": Peer("D-DBPN", DBPN),
    "edsr": Peer("EDSR", EDSR),
    "rcan": Peer("RCAN", RCAN),
    "imdn": Peer(
        "IMDN",
        IMDN,
        published=(
            Published(
                {"IMDB1.c2.weight": (64, 48, 3, 3)},
                source_tensors.imdn_tensors,
                by_sub_pixels("upsampler.0.weight"),
                "PyTorch file of github.com/Zheng222/IMDN",
            ),
        ),
    ),
    "pan": Peer(
        "PAN",
        PAN,
        published=(
            Published(
                {"SCPA_trunk.0.conv1_a.weight": (20, 40, 1, 1)},
                source_tensors.pan_tensors,
                # The files for ×2 and ×3 have the same shapes.
                lambda tensors: (4,) if "upconv2.weight" in tensors else (2, 3),
                "PyTorch file of github.com/zhaohengyuan1/PAN",
            ),
        ),
    ),
    "rlfn": Peer(
        "RLFN",
        RLFN,
        published=(
            Published(
                {"block_1.c1_r.weight": (52, 52, 3, 3)},
                source_tensors.rlfn_tensors,
                by_sub_pixels("upsampler.0.weight"),
                "PyTorch file of github.com/bytedance/RLFN",
            ),
        ),
    ),
    "bsrn": Peer(
        "BSRN",
        BSRN,
        published=(
            Published(
                {"B1.c1_d.weight": (32, 64, 1, 1)},
                source_tensors.bsrn_tensors,
                by_sub_pixels("upsampler.upsampleOneStep.0.weight"),
                "PyTorch file of github.com/xiaom233/BSRN",
            ),
        ),
    ),
}
"""All of them, roughly in the order in which they appeared."""


def closest_peers(name: str) -> list[str]:
    """Returns the names in `PEERS` that a misspelled name may stand for, the likeliest first."""
    return difflib.get_close_matches(name.lower(), PEERS, n=3, cutoff=0.7)


def name_of(network: nn.Module) -> str | None:
    """Returns the name in `PEERS` of a network, whatever its scale and dtype, or None if it is none of them."""
    plain = network.clone(dtype=jnp.float32)
    return next((name for name, peer in PEERS.items() if peer.make(network.scale) == plain), None)


def recognize(tensors: Tensors) -> tuple[str, Published] | None:
    """Finds the network whose published weights a file holds.

    Args:
      tensors: by their published names.

    Returns:
      The network's name and how its weights are read; None if no signature fits.
    """
    bare = {name.removeprefix("module."): value for name, value in tensors.items()}
    for name, peer in PEERS.items():
        for published in peer.published:
            if all(key in bare and bare[key].shape == shape for key, shape in published.signature.items()):
                return name, published
    return None


@contextlib.contextmanager
def _naming_missing(title: str) -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        raise ValueError(f"its tensors are not those of {title}: {error.args[0] or 'one'} is missing") from error
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(f"its tensors are not those of {title} ({error})") from error


def params_from_source(tensors: Tensors, scale: int | None = None) -> tuple[str, int, Params]:
    """Turns published tensors into a network's name, its scale and our parameter tree.

    Args:
      tensors: by their published names.
      scale: the scale to use, for files that serve several or do not tell theirs.

    Returns:
      The name in `PEERS`, the scale, and the parameters, float32.

    Raises:
      ScaleError: the weights do not tell their scale and none is given, or they do not serve the given one.
      ValueError: no network is recognized, or a tensor is not one of its tensors.
    """
    found = recognize(tensors)
    if found is None:
        raise ValueError("its tensors are not those of a known network")
    name, published = found
    with _naming_missing(PEERS[name].title):
        scales = published.scales(tensors)
    if scale is None and len(scales) > 1:
        raise ScaleError(
            f"its weights of {PEERS[name].title} do not tell their scale: pass one of {', '.join(map(str, scales))}"
        )
    scale = scale or scales[0]
    if scale not in scales:
        raise ScaleError(
            f"its weights of {PEERS[name].title} are for ×{', ×'.join(map(str, scales))}, not for ×{scale}"
        )
    with _naming_missing(PEERS[name].title):
        flat = {path: np.asarray(value, np.float32) for path, value in published.convert(tensors, scale).items()}
    return name, scale, flax.traverse_util.unflatten_dict(flat, sep=".")
