"""Weights from everywhere: other libraries' checkpoints, the model folder, the hub."""
