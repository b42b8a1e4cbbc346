"""Weights: checkpoints of other libraries, the model folder, the hub."""
