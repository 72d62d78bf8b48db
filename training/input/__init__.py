"""Input of a training run: images, augmentation and batches."""
