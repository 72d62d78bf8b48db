"""Export report: page, plots, pictures."""
