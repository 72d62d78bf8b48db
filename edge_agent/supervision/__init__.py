"""Watch the stages; publish state, health, status and metrics."""
