"""Benchmark of a model against its peers: same weights, same process, interleaved timing, outputs compared."""
