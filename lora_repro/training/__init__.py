"""One run from start to end: its job, steps, scores, checkpoints and checks."""
