"""Networks of the gate and the segmenter, their losses and metrics."""
