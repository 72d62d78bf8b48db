"""What training, export and calibration share."""
