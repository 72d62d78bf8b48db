"""Training run: compilation, loop, checkpoints and run folder."""
