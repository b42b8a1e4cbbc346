"""Completion of images pixel by pixel."""
