"""Decoders of dense tasks: they read the pyramid of any backbone."""
