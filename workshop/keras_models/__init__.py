"""Loading and freezing of trained Keras models."""
