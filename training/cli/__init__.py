"""Commands of edge-train, one file each."""
