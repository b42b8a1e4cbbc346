"""HTML report of a training run or an evaluation; each task adds sections of its own."""
