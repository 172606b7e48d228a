"""What to run: settings of training runs."""
