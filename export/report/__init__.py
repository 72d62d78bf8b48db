"""The export report: page, plots, pictures."""
