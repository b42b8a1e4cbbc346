"""Text generation: greedy and sampled continuation, streaming, and beam search with a certificate."""
