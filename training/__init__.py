"""Training and evaluation of the gate and the segmenter."""
