"""From a backend's blocks to accounted frames."""
