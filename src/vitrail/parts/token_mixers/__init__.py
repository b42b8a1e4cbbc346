"""Token mixers: how tokens hear of each other. `forward(x, grid) -> x`."""
