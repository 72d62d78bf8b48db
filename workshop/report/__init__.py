"""Pages, plots and pictures of the reports."""
