"""Compression of a model: what to remove, chosen by its weights or by data, and what that changes, measured."""
