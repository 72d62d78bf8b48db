"""The two networks, their losses and metrics."""
