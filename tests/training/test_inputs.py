"""The inputs of the training step."""

import itertools

from a2f_jax.training.inputs import dispatch_inputs, dispatch_sizes


def test_a_run_of_any_length_starts_without_listing_its_dispatches(config):
    config.steps = 2**31 - 1
    # A resident stands for images in device memory; only whether there is one matters here.
    inputs = dispatch_inputs(None, object(), 0, dispatch_sizes(config, 0))
    assert [len(steps) for steps in itertools.islice(inputs, 3)] == list(itertools.islice(dispatch_sizes(config, 0), 3))
