"""Evaluate trained models on images they have not seen."""
