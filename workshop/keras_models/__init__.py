"""Load trained Keras models and freeze them."""
