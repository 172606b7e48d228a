"""Training: settings, inputs, the training step, parallelism, the loop, checkpoints, and monitoring."""
