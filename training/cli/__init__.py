"""The commands of edge-train, one file each."""
