"""Camera backends: one module per camera library or source."""
