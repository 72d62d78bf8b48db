"""Images to training batches."""
