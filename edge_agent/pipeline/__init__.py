"""Pipeline that joins camera, inspection and delivery; only this package imports all three."""
