"""Run a training."""
