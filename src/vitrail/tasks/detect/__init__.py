"""Object detection: boxes, and masks if the model has them."""
