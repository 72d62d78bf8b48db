"""Judge a frame: preprocess, gate, segment, locate on the strip."""
