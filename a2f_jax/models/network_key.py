"""Networks as keys of caches."""

from typing import Any


class NetworkKey:
    """A key for what is computed once for a network: equal networks have equal keys.

    A network that cannot be hashed, because one of its attributes is a list or an array, equals only itself.

    Attributes:
      network: the network.
    """

    def __init__(self, network: Any):
        self.network = network
        try:
            self._hash, self._hashable = hash(network), True
        except TypeError:
            self._hash, self._hashable = id(network), False

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NetworkKey):
            return NotImplemented
        same = self.network is other.network
        return same or (self._hashable and other._hashable and bool(self.network == other.network))
