"""One training loop on plain PyTorch, and what makes it lose nothing."""
