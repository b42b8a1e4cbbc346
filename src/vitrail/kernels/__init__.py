"""Fast operations: each a folder with `reference.py`, the readable specification, and its backends."""
