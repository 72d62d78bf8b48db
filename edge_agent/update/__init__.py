"""Replace a bundle while the line runs."""
