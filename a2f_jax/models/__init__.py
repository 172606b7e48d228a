"""The A2F network, its variants and layers, and counts of its parameters and multi-adds."""
