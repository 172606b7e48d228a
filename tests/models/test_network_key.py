"""Which networks share what is cached for them."""

import flax.linen as nn
import pytest

from a2f_jax.models.a2f import build
from a2f_jax.models.network_key import NetworkKey


class Listed(nn.Module):
    widths: list


def test_equal_networks_share_a_key():
    keys = {NetworkKey(build("a2f-sd", 2)), NetworkKey(build("a2f-sd", 2)), NetworkKey(build("a2f-sd", 4))}
    assert len(keys) == 2


def test_a_network_that_cannot_be_hashed_shares_a_key_with_itself_only():
    network = Listed([4])
    with pytest.raises(TypeError):
        hash(network)
    assert NetworkKey(network) == NetworkKey(network)
    assert len({NetworkKey(network), NetworkKey(network), NetworkKey(Listed([4]))}) == 2
    assert NetworkKey(network) != NetworkKey(build("a2f-sd", 2))
    assert NetworkKey(network) != network
