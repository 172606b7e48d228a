"""The settings of training runs."""
