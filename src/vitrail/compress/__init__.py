"""Compression of a model: parts to remove, selected by weights or data, and the measured change."""
