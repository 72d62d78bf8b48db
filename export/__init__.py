"""Export of trained Keras models to verified, signed bundles for the edge agent."""
