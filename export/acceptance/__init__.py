"""Acceptance of exported artifacts by their decisions on labelled frames."""
