"""One camera library or source a module."""
