"""A training run: compilation, loop, checkpoints and run folder."""
