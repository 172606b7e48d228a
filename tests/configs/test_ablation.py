"""Every ablation of the paper can be trained, and its variant is recognized from its weights."""

import jax
import jax.numpy as jnp
import pytest

from a2f_jax.configs import a2f, ablation
from a2f_jax.evaluation.paper import ABLATION, HEAD_KERNELS
from a2f_jax.model import infer_network, variant_of
from a2f_jax.models.a2f import ABLATIONS
from a2f_jax.training.settings import make_network

NAMES = [*ABLATIONS, "head1", "head5", "head7"]
THOUSANDS = [row.parameters for row in ABLATION[:4]] + [HEAD_KERNELS[i].parameters for i in (0, 2, 3)]


@pytest.mark.parametrize(("name", "thousands"), list(zip(NAMES, THOUSANDS, strict=True)))
def test_the_network_has_the_published_number_of_parameters_and_is_recognized(name, thousands):
    network = make_network(ablation.get_config(name), "gpu").clone(dtype=jnp.float32)
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) / 1e3 == pytest.approx(thousands, abs=0.5)
    attention = network.attention and network.auxiliary
    assert infer_network(params) == network.clone(attention=attention)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("baseline", "a2f-l-baseline"),
        ("baseline_mp", "a2f-32x18-baseline"),
        ("noca_mp", "a2f-l-noca-depthwise"),
        ("head5", "a2f-sd-head5"),
    ],
)
def test_every_ablation_has_a_name_of_its_own(name, variant):
    assert variant_of(make_network(ablation.get_config(name), "cpu")) == variant


def test_an_ablation_changes_the_network_only():
    paper, changed = a2f.get_config("l_x2"), ablation.get_config("noca")
    assert changed.model.attention is False
    changed.model.attention = True
    assert changed.to_dict() == paper.to_dict()


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"baseline_mp.*head7"):
        ablation.get_config("tail3")
