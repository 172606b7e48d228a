"""State, step, loop, checkpoints, parallelism."""
