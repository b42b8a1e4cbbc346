"""What architectures are made of: one idea a file."""
