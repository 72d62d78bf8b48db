"""Processing of a backend's blocks to frames in which every line is accounted for."""
