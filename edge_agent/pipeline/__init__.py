"""Camera, inspection and delivery joined; only this package knows all three."""
