"""Supervision of the stages, and publication of state, health, status and metrics."""
