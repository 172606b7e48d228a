"""A2F and its parts, the variants, weights on disk, parameters and multi-adds."""
