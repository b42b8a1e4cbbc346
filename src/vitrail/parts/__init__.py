"""Building blocks of architectures, one idea per file."""
