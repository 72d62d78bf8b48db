"""Decision thresholds of the gate, calibrated on labelled frames."""
